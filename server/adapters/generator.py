"""Generates adapters for a batch of descriptions, and measures the two stages of the batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.description_tokenizer import PreparedDescription
from hypernet.lora import LoraWeights
from server.adapters.heap import HeapTrimmer


class AdapterGenerator(Protocol):
    """The interface of a hypernetwork. `hypernet.generator.Generator` implements it.

    Its methods are synchronous and run in one thread.
    """

    spec: LoraSpec
    fingerprint: str
    """Identity of the hypernetwork: its weights and its configuration."""
    base_fingerprint: str
    """Identity of the base model."""
    base_model_name: str
    """Name of the base model in the hypernetwork's checkpoint."""
    encoder_fingerprint: str
    """Identity of the encoder."""

    def prepare(self, description: str) -> PreparedDescription:
        """Normalise, tokenize and check a description. Thread-safe.

        Raises:
            DescriptionError: the encoder cannot read the description.
        """

    def embed(self, descriptions: list[str]) -> Tensor:
        """Embed descriptions. [n, e]"""

    def generate_from_embeddings(self, embeddings: Tensor) -> list[LoraWeights]:
        """Generate one adapter for each row of the embeddings [n, e]."""


@dataclass(frozen=True, slots=True)
class GeneratedAdapter:
    """One adapter as the hypernetwork returned it, with the seconds that its batch took."""

    weights: LoraWeights = field(repr=False)
    embed_s: float
    generate_s: float


class BatchGenerator:
    """Generates adapters for one batch of descriptions per call:
    the function that `Batcher` runs.
    """

    def __init__(
        self,
        generator: AdapterGenerator,
        clock: Callable[[], float] = time.perf_counter,
        heap: HeapTrimmer | None = None,
    ) -> None:
        """Wrap a generator.

        Args:
            generator: the hypernetwork and its encoder.
            clock: monotonic seconds.
            heap: gets the number of generated adapters. None: a new one.
        """
        self._generator = generator
        self._clock = clock
        self._heap = heap or HeapTrimmer()

    def __call__(self, descriptions: list[str]) -> list[GeneratedAdapter]:
        """Generate one adapter per description, in order."""
        started = self._clock()
        embeddings = self._generator.embed(descriptions)  # [n, e]
        embedded = self._clock()
        adapters = self._generator.generate_from_embeddings(embeddings)
        finished = self._clock()
        self._heap.record_adapters(len(adapters))
        return [GeneratedAdapter(weights, embedded - started, finished - embedded) for weights in adapters]
