"""The path of a request: from a task description and a prompt to a completion, step by step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from hypernet.description_tokenizer import PreparedDescription
from hypernet.peft_io import dump_adapter, provenance
from server.adapters.adapter import Adapter, AdapterInfo
from server.adapters.export import zip_files
from server.adapters.provider import AdapterProvider, Source
from server.descriptions import DescriptionPreparer
from server.engine.interface import Delta, Engine, Sampling
from server.errors import EngineDeadError, NotFoundError
from server.lifecycle import Lifecycle
from server.observability.logging import add_log_fields
from server.observability.metrics import Metrics
from server.prompts import Prompt, PromptTokenizer

__all__ = [
    "AdapterInfo",
    "AdapterList",
    "AdapterResult",
    "GenerationRequest",
    "GenerationResult",
    "PreparedDescription",
    "Service",
    "Timings",
]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation, as a client asks for it."""

    id: str
    task_description: str
    """Empty: the base model answers."""
    prompt: Prompt
    max_tokens: int | None
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds.

    `queue_s` is the wait for the batch that generated the adapter; `embed_s` and `generate_s` are
    that batch's stages. All three are 0 if the adapter existed. `register_s` is the wait until the
    engine held the adapter. `first_token_s` and `total_s` count from the request's arrival.
    """

    queue_s: float = 0.0
    embed_s: float = 0.0
    generate_s: float = 0.0
    register_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A finished generation."""

    completion: str
    finish_reason: Literal["stop", "length"]
    adapter_id: str | None
    source: Source | None
    description: PreparedDescription | None
    prompt_tokens: int
    completion_tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class AdapterResult:
    """The adapter for a description, where it was found,
    and what the encoder reads of the description.
    """

    info: AdapterInfo
    source: Source
    description: PreparedDescription


@dataclass(frozen=True, slots=True)
class AdapterList:
    """Adapters, newest first. `complete` is False if Redis did not answer."""

    adapters: list[AdapterInfo]
    complete: bool


class Service:
    """Everything that the API offers. `app.create_app` builds the parts."""

    def __init__(
        self,
        engine: Engine,
        adapters: AdapterProvider,
        lifecycle: Lifecycle,
        metrics: Metrics,
        *,
        prepare: Callable[[str], PreparedDescription],
        hypernetwork: str,
        base_model: str,
        base_fingerprint: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take the started parts.

        Args:
            engine: runs the base model with adapters.
            adapters: finds and generates adapters.
            lifecycle: admits requests.
            metrics: receives the duration of every stage.
            prepare: normalises, tokenizes and checks a description (`AdapterGenerator.prepare`).
            hypernetwork: fingerprint of the hypernetwork, for the provenance of exports.
            base_model: base model named in exports: a hub id, a folder, or the bundled model's
                name.
            base_fingerprint: fingerprint of the base model.
            clock: returns monotonic seconds.
        """
        self._engine = engine
        self._adapters = adapters
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._hypernetwork = hypernetwork
        self._base_model = base_model
        self._base_fingerprint = base_fingerprint
        self._clock = clock
        self._prompts = PromptTokenizer(engine)
        self._descriptions = DescriptionPreparer(prepare)

    @property
    def model(self) -> str:
        """Name of the base model."""
        return self._engine.model_name

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[str | GenerationResult]:
        """Generate a completion. Closing the generator aborts the generation.

        Yields:
            Pieces of the completion, then the `GenerationResult`.

        Raises:
            ServiceError: any of them, before the first piece or later.
        """
        start = self._clock()
        description, found, lease, register_s, first_token_s = None, None, None, 0.0, 0.0
        last, texts = Delta("", 0, None), list[str]()
        with self._lifecycle.admit() as deadline:
            tokens, max_tokens = await deadline.wait(self._prompts.encode(request.prompt, request.max_tokens))
            async with AsyncExitStack() as stack:
                if request.task_description:
                    description = await deadline.wait(self._descriptions.prepare(request.task_description))
                    adapter_id = self._adapters.key(description.token_ids)
                    # From memory, Redis or an identical request in flight; else from the next
                    # batch, with a write-behind to Redis.
                    found = await deadline.wait(self._adapters.get(adapter_id, description.text))
                    found_at = self._clock()
                    lease_context = self._engine.lease(adapter_id, found.weights)
                    lease = await deadline.wait(stack.enter_async_context(lease_context))
                    register_s = self._clock() - found_at
                    found = replace(found, device_weights=None)  # the engine has a copy
                sampling = Sampling(max_tokens, request.temperature, request.top_p, request.stop, request.seed)
                stream = self._engine.generate(tokens, sampling, lease, request.id)
                async with aclosing(deadline.iterate(stream)) as deltas:
                    async for last in deltas:
                        first_token_s = first_token_s or self._clock() - start
                        texts.append(last.text)
                        yield last.text
        if last.finish_reason is None:
            raise EngineDeadError("the engine ended the completion early")
        batch_times = (found.queue_s, found.embed_s, found.generate_s) if found else (0.0, 0.0, 0.0)
        yield self._record_metrics(
            GenerationResult(
                "".join(texts),
                last.finish_reason,
                found.adapter.id if found else None,
                found.source if found else None,
                description,
                len(tokens),
                last.completion_tokens,
                Timings(*batch_times, register_s, first_token_s, self._clock() - start),
            )
        )

    async def create_adapter(self, task_description: str) -> AdapterResult:
        """Find or generate the adapter for a description.

        Raises:
            ServiceError: as `generate`.
        """
        with self._lifecycle.admit() as deadline:
            description = await deadline.wait(self._descriptions.prepare(task_description))
            adapter_id = self._adapters.key(description.token_ids)
            found = await deadline.wait(self._adapters.get(adapter_id, description.text))
        add_log_fields(adapter=found.adapter.id, source=found.source, **_description_fields(description))
        return AdapterResult(found.adapter.info, found.source, description)

    async def get_adapter(self, adapter_id: str) -> AdapterInfo:
        """Get one adapter.

        Raises:
            NotFoundError: neither memory nor Redis has the adapter.
            ServiceError: the request is not admitted or takes too long.
        """
        with self._lifecycle.admit() as deadline:
            info = await deadline.wait(self._adapters.store.info(adapter_id))
        if info is None:
            raise _adapter_not_found(adapter_id)
        return info

    async def list_adapters(self, limit: int, after: tuple[int, str] | None) -> AdapterList:
        """List adapters, newest first.

        Args:
            limit: maximum number.
            after: `created_us` and id of the last adapter of the previous page.

        Raises:
            ServiceError: the request is not admitted or takes too long.
        """
        with self._lifecycle.admit() as deadline:
            return AdapterList(*await deadline.wait(self._adapters.store.page(limit, after)))

    async def export_adapter(self, adapter_id: str) -> bytes:
        """Export an adapter as a zip file with the files of a PEFT adapter folder.

        Raises:
            NotFoundError: neither memory nor Redis has the adapter.
            ServiceError: the request is not admitted or takes too long.
        """
        with self._lifecycle.admit() as deadline:
            adapter = await deadline.wait(self._load_adapter(adapter_id))
            origin = provenance(adapter.description, self._hypernetwork, self._base_fingerprint)
            return await deadline.wait(
                asyncio.to_thread(lambda: zip_files(dump_adapter(adapter.weights, self._base_model, origin)))
            )

    async def delete_adapter(self, adapter_id: str) -> None:
        """Delete an adapter from memory, Redis and the engine. Generations that use it finish.

        Raises:
            NotFoundError: neither memory nor Redis had the adapter.
            StoreUnavailableError: Redis did not answer and may still have the adapter.
        """
        found = await self._adapters.store.delete(adapter_id)
        await self._engine.evict(adapter_id)
        if not found:
            raise _adapter_not_found(adapter_id)

    def check_alive(self) -> None:
        """Check that the engine runs.

        Raises:
            EngineDeadError: the engine has died.
        """
        if self._engine.dead is not None:
            raise EngineDeadError(f"the inference engine has died: {self._engine.dead}")

    async def degraded_reasons(self) -> list[str]:
        """Faults that do not make requests fail. Empty if there are none."""
        shared = self._adapters.store.shared
        if shared is None or await shared.store.check():
            return []
        return ["Redis does not answer: adapters are kept in memory only"]

    def engine_stats(self) -> dict[str, Any]:
        """The engine's adapter slots and their use."""
        return self._engine.stats()

    async def close(self) -> None:
        """Stop the service's own threads."""
        await self._prompts.close()

    async def _load_adapter(self, adapter_id: str) -> Adapter:
        adapter = await self._adapters.store.get(adapter_id)
        if adapter is None:
            raise _adapter_not_found(adapter_id)
        return adapter

    def _record_metrics(self, result: GenerationResult) -> GenerationResult:
        stages = self._metrics.stage_seconds
        timings = result.timings
        if result.source == "generated":
            stages.labels("queue").observe(timings.queue_s)
            stages.labels("embed").observe(timings.embed_s)
            stages.labels("generate").observe(timings.generate_s)
        if result.source is not None:
            stages.labels("register").observe(timings.register_s)
        stages.labels("first_token").observe(timings.first_token_s)
        stages.labels("total").observe(timings.total_s)
        self._metrics.tokens.labels("prompt").inc(result.prompt_tokens)
        self._metrics.tokens.labels("completion").inc(result.completion_tokens)
        add_log_fields(
            adapter=result.adapter_id or "base",
            source=result.source or "base",
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            first_token_s=round(timings.first_token_s, 4),
            **_description_fields(result.description),
        )
        return result


def _description_fields(description: PreparedDescription | None) -> dict[str, str | float]:
    """Log fields about a description that the encoder reads only in part, or may not understand."""
    if description is None or not description.warnings:
        return {}
    codes = ",".join(warning.code for warning in description.warnings)
    return {"unread": round(description.unread, 4), "warnings": codes}


def _adapter_not_found(adapter_id: str) -> NotFoundError:
    return NotFoundError(f"there is no adapter {adapter_id}", param="id", code="adapter_not_found")
