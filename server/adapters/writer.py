"""What the server asks of a hypernetwork: `hypernet.generator.Generator`, or a small fake in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights


class AdapterWriter(Protocol):
    """Writes LoRA adapters for task descriptions. Synchronous; one thread at a time."""

    spec: LoraSpec
    fingerprint: str
    """Identity of the hypernetwork: its weights and its configuration."""
    base_fingerprint: str
    encoder_fingerprint: str

    def embed(self, descriptions: list[str]) -> Tensor:
        """Descriptions -> embeddings [n, e]."""

    def write(self, embeddings: Tensor) -> list[LoraWeights]:
        """Embeddings [n, e] -> n adapters."""


@dataclass(frozen=True, slots=True)
class Written:
    """One adapter, fresh from the hypernetwork, and what its batch took."""

    weights: LoraWeights = field(repr=False)
    embed_s: float
    generate_s: float


def timed_batch(
    writer: AdapterWriter, clock: Callable[[], float] = time.perf_counter
) -> Callable[[list[str]], list[Written]]:
    """The batcher's worker: embed, then write, each timed for the whole batch."""

    def compute(descriptions: list[str]) -> list[Written]:
        start = clock()
        embeddings = writer.embed(descriptions)
        embedded = clock()
        written = writer.write(embeddings)
        end = clock()
        return [Written(weights, embedded - start, end - embedded) for weights in written]

    return compute
