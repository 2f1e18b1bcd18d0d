"""The engine interface of the service. `vllm.py` implements it; tests use a small fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one completion. Temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """One chunk of a streamed completion."""

    text: str
    completion_tokens: int
    """Number of tokens generated so far."""
    finish_reason: Literal["stop", "length"] | None
    """Set on the last chunk only."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease on an adapter in the engine. A leased adapter is not evicted."""

    adapter_id: str
    handle: object = field(repr=False)
    """The engine's reference to the adapter. Opaque to callers."""


class Engine(Protocol):
    """A multi-LoRA inference engine."""

    model_name: str
    max_model_len: int
    """Maximum context in tokens: prompt and completion together."""

    async def start(self) -> None:
        """Load the model. Returns when the engine can serve requests."""

    async def stop(self) -> None:
        """Abort all requests and free all processes and memory."""

    @property
    def dead(self) -> str | None:
        """Why the engine no longer runs. None while it runs. A dead engine stays dead."""

    async def death(self) -> str:
        """Wait until the engine no longer runs. Returns the reason."""

    def tokenize(self, messages: list[dict[str, str]] | None, text: str | None) -> list[int]:
        """Token ids of chat messages, by the chat template with the generation prompt,
        or of raw text.
        """

    def lease(self, adapter_id: str, weights: LoraWeights) -> AbstractAsyncContextManager[Lease]:
        """Keep the adapter in the engine until the context ends.

        Simultaneous leases on one adapter load it once. A lease on a resident adapter is free.
        Waits while leased adapters occupy all slots.

        Raises:
            EngineDeadError: the engine has died.
            AdapterRejectedError: the weights do not fit the base model.
        """

    def generate(
        self, prompt: list[int], sampling: Sampling, lease: Lease | None, request_id: str
    ) -> AsyncIterator[Delta]:
        """Stream one completion. Closing the iterator aborts the generation.

        Args:
            prompt: token ids.
            sampling: sampling parameters.
            lease: the adapter to use. None: the base model alone.
            request_id: prefix of vLLM's request id, for its logs.

        Raises:
            EngineDeadError: the engine died before or during the generation.
        """

    async def evict(self, adapter_id: str) -> None:
        """Evict an adapter as soon as no lease holds it. Unknown ids are ignored."""

    @property
    def resident(self) -> int:
        """Number of adapters in the engine."""

    def stats(self) -> dict[str, Any]:
        """Counters for `/ready`: slots, and adapters resident, in flight and waiting."""


def fits(spec: LoraSpec, other: LoraSpec) -> bool:
    """Whether adapters of `spec` can run in an engine started for `other`."""
    return spec.modules == other.modules and spec.num_layers == other.num_layers and spec.rank <= other.rank
