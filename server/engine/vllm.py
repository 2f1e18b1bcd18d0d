"""The engine: vLLM's `AsyncLLM` in this process, with its core in a child process.

This module adds three things to vLLM: leases on adapters that are loaded from memory, a death of
the core that every caller learns of, and a stop that leaves no process behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, cast

import torch

from hypernet.lora import LoraWeights
from server.engine import serialization
from server.engine.config import EngineConfig
from server.engine.interface import Delta, Lease, Sampling
from server.engine.patches import cpu_ops, plugin
from server.engine.patches.adapter_loader import SCHEME
from server.engine.patches.statistics import stat_logger
from server.engine.registry import AdapterRegistry, Entry
from server.errors import AdapterRejectedError, EngineDeadError, InvalidRequestError, UnavailableError

T = TypeVar("T")

FINISH_REASONS: dict[str, Literal["stop", "length"]] = {
    "stop": "stop",
    "length": "length",
    "repetition": "stop",
}

CORE_DIED = "the engine's core process has died"

STOP_SECONDS = 5.0
"""Seconds that the core may take to exit before it is killed."""


class VllmEngine:
    """vLLM behind the `Engine` interface. Not reusable after `stop`."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.model_name = config.model_name
        self.max_model_len = config.max_model_len
        self._adapters: AdapterRegistry[LoraWeights] = AdapterRegistry(
            config.max_loras, self._load, self._unload
        )
        self._llm: Any = None
        self._dead: str | None = None
        self._death = asyncio.Event()
        self._death_watch: asyncio.Task[None] | None = None
        self._loading = False
        self._foreign_children: set[Any] = set()
        self._request_counter = itertools.count()

    # --- start, stop and death

    async def start(self) -> None:
        """Load the model in a child process. Returns when the engine can serve requests.

        Raises:
            Exception: vLLM cannot load the model, or cannot run on this machine.
        """
        cpu, cores = not torch.cuda.is_available(), len(os.sched_getaffinity(0))
        if cpu and self.config.cpu_threads is not None:  # the setting takes precedence over the environment
            os.environ.pop("OMP_NUM_THREADS", None)
        for name, value in self.config.environment(cpu=cpu, cores=cores).items():
            os.environ.setdefault(name, value)
        self._foreign_children = {*multiprocessing.active_children()}
        # In a thread: importing vLLM takes seconds, and its constructor waits for the child
        # process.
        await asyncio.to_thread(self._load_engine)
        # The first request starts vLLM's output handler and is slow.
        async for _ in self.generate([0], Sampling(max_tokens=1), None, "warm-up"):
            pass
        self._death_watch = asyncio.create_task(self._watch_core())

    async def stop(self) -> None:
        """Abort all requests and end every child process, within about `STOP_SECONDS`."""
        self._mark_dead("the engine was stopped")
        if self._death_watch:
            self._death_watch.cancel()
        while self._loading:  # its thread waits for the child process, which may take many more seconds
            for child in {*multiprocessing.active_children()} - self._foreign_children:
                child.kill()  # while it loads, the child only records a SIGTERM
            await asyncio.sleep(0.1)
        if self._llm is None:
            return
        handler = self._llm.output_handler
        # vLLM would log the intended end of its core as an error.
        logging.getLogger("vllm.v1.engine.async_llm").setLevel(logging.CRITICAL)
        await asyncio.to_thread(self._llm.shutdown, STOP_SECONDS)
        if handler is not None:
            await asyncio.wait({handler}, timeout=STOP_SECONDS)

    @property
    def dead(self) -> str | None:
        """Why the engine no longer runs. None while it runs."""
        return self._dead

    async def death(self) -> str:
        """Wait until the engine no longer runs. Returns the reason."""
        await self._death.wait()
        return str(self._dead)

    def _load_engine(self) -> None:
        self._loading = True
        try:
            with self.config.patches.exported():
                self._llm = self._create_llm()
        finally:
            self._loading = False

    def _create_llm(self) -> Any:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._check_alive()
        cpu = None if torch.cuda.is_available() else torch.cpu.get_capabilities()
        dtype = self.config.resolved_dtype(cpu)
        ops = cpu_ops.ARGUMENTS if plugin.should_patch_cpu_ops(self.config.patches) else {}
        arguments = AsyncEngineArgs(**self.config.engine_arguments() | {"dtype": dtype} | ops)
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[stat_logger()])

    async def _watch_core(self) -> None:
        """Detect the death of an idle core: vLLM's output handler ends when the core does,
        and only then.
        """
        await asyncio.wait({self._llm.output_handler})
        self._mark_dead(CORE_DIED)

    def _mark_dead(self, reason: str) -> None:
        if self._dead is None:
            self._dead = reason
            self._death.set()
            self._adapters.fail(self._dead_error)

    def _dead_error(self) -> EngineDeadError:
        return EngineDeadError(f"{self._dead}; restart the server")

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise self._dead_error()

    def _check_started(self) -> None:
        self._check_alive()
        if self._llm is None:
            raise UnavailableError("the engine is starting")

    async def _await_unless_dead(self, work: Awaitable[T]) -> T:
        """Await a result that vLLM never delivers if the core dies."""
        result = asyncio.ensure_future(work)
        death = asyncio.create_task(self._death.wait())
        try:
            await asyncio.wait({result, death}, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise self._dead_error()
        finally:
            result.cancel()
            death.cancel()

    # --- requests

    def tokenize(self, messages: list[dict[str, str]] | None, text: str | None) -> list[int]:
        """Token ids of chat messages, by the chat template with the generation prompt, or of raw
        text.

        Raises:
            InvalidRequestError: the chat template rejects the messages.
        """
        self._check_started()
        tokenizer = self._llm.get_tokenizer()
        if messages is None:
            raw = text or ""
            # A rendered chat template begins with the BOS token. The tokenizer would add a second
            # one.
            has_bos = bool(tokenizer.bos_token) and raw.startswith(tokenizer.bos_token)
            return cast("list[int]", tokenizer.encode(raw, add_special_tokens=not has_bos))
        from jinja2 import TemplateError

        try:
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except (TemplateError, ValueError) as error:  # ValueError: the model has no template
            raise InvalidRequestError(
                f"the chat template of {self.model_name} rejects the messages: {error}",
                param="messages",
            ) from error
        return cast("list[int]", ids)

    async def generate(
        self, prompt: list[int], sampling: Sampling, lease: Lease | None, request_id: str
    ) -> AsyncGenerator[Delta, None]:
        """Stream one completion. Closing the iterator aborts the generation.

        Chunks without text are not yielded: they hold half a character, or the beginning of a
        possible stop string.

        Args:
            prompt: token ids.
            sampling: sampling parameters.
            lease: the adapter to use. None: the base model alone.
            request_id: prefix of vLLM's request id, for its logs.

        Raises:
            EngineDeadError: the engine died before or during the generation.
            InvalidRequestError: the prompt is longer than the model's context.
        """
        self._check_started()
        with contextlib.ExitStack() as references:
            lora = None
            if lease is not None:
                entry = cast("Entry", lease.handle)
                references.enter_context(self._adapters.retain(entry))
                lora = _lora_request(entry.adapter_id, entry.int_id)
            async with contextlib.aclosing(self._stream(prompt, sampling, lora, request_id)) as outputs:
                tokens = 0
                async for output in outputs:
                    chunk = output.outputs[0]
                    tokens += len(chunk.token_ids)
                    finish = self._finish_reason(chunk.finish_reason)
                    if chunk.text or finish:
                        yield Delta(chunk.text, tokens, finish)

    async def _stream(
        self, prompt: list[int], sampling: Sampling, lora: Any, request_id: str
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs, with its exceptions translated. Leaves no request running."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError as CoreDeadError
        from vllm.v1.engine.exceptions import EngineGenerateError

        name = f"{request_id}-{next(self._request_counter)}"
        try:
            async for output in self._llm.generate(
                tokens_input(prompt), _sampling_params(sampling), name, lora_request=lora
            ):
                yield output
        except VLLMClientError as error:
            raise InvalidRequestError(str(error), param="prompt") from error
        except (CoreDeadError, EngineGenerateError) as error:
            if isinstance(error, CoreDeadError) or self._llm.errored:
                self._mark_dead(CORE_DIED)
                raise self._dead_error() from error
            cause = error.__cause__ or error
            raise UnavailableError(f"the engine failed on this request. Retry it: {cause}") from error
        finally:
            # vLLM aborts by itself, except if it is cancelled while it submits the request. The
            # adapter may be evicted after the return, so abort again. vLLM ignores finished
            # requests.
            if self._dead is None:
                await self._llm.abort(name)

    def _finish_reason(self, reason: str | None) -> Literal["stop", "length"] | None:
        if reason is None:
            return None
        if reason not in FINISH_REASONS:
            if self._dead is not None:
                raise self._dead_error()
            raise UnavailableError(f"the engine ended the generation early ({reason})")
        return FINISH_REASONS[reason]

    # --- adapters

    @asynccontextmanager
    async def lease(self, adapter_id: str, weights: LoraWeights) -> AsyncIterator[Lease]:
        """Keep the adapter in the engine until the context ends; see `AdapterRegistry`.

        Raises:
            EngineDeadError: the engine has died.
            AdapterRejectedError: the weights do not fit the base model.
        """
        self._check_started()
        async with self._adapters.lease(adapter_id, weights) as entry:
            yield Lease(adapter_id, entry)

    async def evict(self, adapter_id: str) -> None:
        """Evict an adapter as soon as no lease holds it. Unknown ids are ignored."""
        await self._adapters.evict(adapter_id)

    @property
    def resident(self) -> int:
        """Number of adapters in the engine."""
        return self._adapters.resident

    def stats(self) -> dict[str, Any]:
        """Counters: slots, and adapters resident, in flight and waiting."""
        adapters = self._adapters
        return {
            "slots": adapters.slots,
            "resident": adapters.resident,
            "in_flight": adapters.in_flight,
            "waiting": adapters.waiting,
        }

    async def _load(self, adapter_id: str, int_id: int, weights: LoraWeights, evict: int | None) -> None:
        try:
            serialized = await asyncio.to_thread(
                serialization.serialize, weights, self.config.lora, as_handle=self.config.share_device_memory
            )
        except Exception:  # the registry relies on the eviction even if this fails
            if evict is not None:
                await self._unload(evict)
            raise
        arguments = (int_id, SCHEME + adapter_id, serialized.spec, serialized.data, evict)
        try:
            await self._await_unless_dead(self._llm.collective_rpc("t2l_load", args=arguments))
        except EngineDeadError:
            raise
        except Exception as error:  # vLLM raises a bare Exception for a failed call
            if self._llm.errored:
                self._mark_dead(CORE_DIED)
                raise self._dead_error() from error
            raise AdapterRejectedError(f"the engine could not load adapter {adapter_id}: {error}") from error

    async def _unload(self, int_id: int) -> None:
        await self._await_unless_dead(self._llm.collective_rpc("t2l_unload", args=(int_id,)))


def _lora_request(adapter_id: str, int_id: int) -> Any:
    from vllm.lora.request import LoRARequest

    # vLLM keys its prefix cache by name and path, so both contain the content hash.
    return LoRARequest(lora_name=SCHEME + adapter_id, lora_int_id=int_id, lora_path=SCHEME + adapter_id)


def _sampling_params(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=list(sampling.stop),
        seed=sampling.seed,
        output_kind=RequestOutputKind.DELTA,
    )
