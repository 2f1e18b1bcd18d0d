"""What the service asks of an inference engine; `vllm.py` is the real one, tests have a small fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode one completion. Temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a completion as it streams: new text, and where the completion now stands."""

    text: str
    completion_tokens: int
    """Tokens made so far."""
    finish_reason: Literal["stop", "length"] | None
    """Set on the last piece only."""


@dataclass(frozen=True, slots=True)
class Lease:
    """An adapter held in the engine: while the lease lives, no eviction touches it."""

    adapter_id: str
    handle: object = field(repr=False)
    """The engine's own name for it; opaque to everybody else."""


class Engine(Protocol):
    """A multi-LoRA inference engine."""

    model_name: str
    max_model_len: int
    """Prompt and completion tokens together."""

    async def start(self) -> None:
        """Load the model; returns when requests can be served."""

    async def stop(self) -> None:
        """Abort what runs and free every process and byte."""

    @property
    def dead(self) -> str | None:
        """Why the engine no longer runs; None while it does. Death is final."""

    async def death(self) -> str:
        """Wait until the engine no longer runs; returns why."""

    def tokenize(self, messages: list[dict[str, str]] | None, text: str | None) -> list[int]:
        """Token ids of chat messages (through the chat template, with the generation prompt) or of raw text."""

    def lease(self, adapter_id: str, weights: LoraWeights) -> AbstractAsyncContextManager[Lease]:
        """Have the adapter in the engine for as long as the context lasts.

        Registering is single-flight per adapter id; a second lease on a resident
        adapter costs nothing. Waits when every slot is in flight.

        Raises:
            EngineDeadError: the engine has died.
            AdapterRejectedError: the weights do not fit the base model.
        """

    def generate(
        self, prompt: list[int], sampling: Sampling, lease: Lease | None, request_id: str
    ) -> AsyncIterator[Delta]:
        """Stream one completion; `lease=None` is the base model. Closing the iterator aborts the generation.

        Raises:
            EngineDeadError: the engine has died, before or during.
        """

    async def forget(self, adapter_id: str) -> None:
        """Drop an adapter from the engine once no lease holds it. Unknown ids are ignored."""

    @property
    def resident(self) -> int:
        """How many adapters the engine holds."""

    def stats(self) -> dict[str, Any]:
        """Numbers worth showing on `/ready`: adapters resident, in flight, slots."""


def fits(spec: LoraSpec, other: LoraSpec) -> bool:
    """Whether adapters of `spec` can run in an engine started for `other`."""
    return spec.modules == other.modules and spec.num_layers == other.num_layers and spec.rank <= other.rank
