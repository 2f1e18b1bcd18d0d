"""What the server asks of a hypernetwork: `hypernet.generator.Generator`, or a small fake in tests."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights

TRIM_EVERY = 64
"""Adapters between two returns of free memory to the system."""

NICENESS = 10
"""How far the hypernetwork's thread stands back where the engine's threads want its core: running
streams come before new adapters. On an idle core it costs nothing."""


class AdapterGenerator(Protocol):
    """Writes LoRA adapters for task descriptions. Synchronous; one thread at a time."""

    spec: LoraSpec
    fingerprint: str
    """Identity of the hypernetwork: its weights and its configuration."""
    base_fingerprint: str
    encoder_fingerprint: str

    def embed(self, descriptions: list[str]) -> Tensor:
        """Descriptions -> embeddings [n, e]."""

    def generate_from_embeddings(self, embeddings: Tensor) -> list[LoraWeights]:
        """Embeddings [n, e] -> n adapters."""


@dataclass(frozen=True, slots=True)
class GeneratedAdapter:
    """One adapter, fresh from the hypernetwork, and what its batch took."""

    weights: LoraWeights = field(repr=False)
    embed_s: float
    generate_s: float


def timed_batch(
    generator: AdapterGenerator, clock: Callable[[], float] = time.perf_counter
) -> Callable[[list[str]], list[GeneratedAdapter]]:
    """The batcher's worker: embed, then write, each timed for the whole batch."""
    made = 0

    def compute(descriptions: list[str]) -> list[GeneratedAdapter]:
        nonlocal made
        start = clock()
        embeddings = generator.embed(descriptions)
        embedded = clock()
        written = generator.generate_from_embeddings(embeddings)
        end = clock()
        made += len(written)
        if made >= TRIM_EVERY:
            made = 0
            return_free_memory()
        return [GeneratedAdapter(weights, embedded - start, end - embedded) for weights in written]

    return compute


def return_free_memory() -> None:
    """Give what is free on the heap back to the system, where the C library can (glibc).

    Batches of many sizes leave holes between the adapters that stay: some 500 KB an adapter were seen.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def lower_thread_priority() -> None:
    """Lower the priority of the calling thread, where threads have one of their own (Linux)."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # Never up: a server that was started with less priority may not give itself more.
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
