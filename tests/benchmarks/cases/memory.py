"""Memory that a cached adapter occupies in the server, against its own bytes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch

from hypernet.generator import Generator
from hypernet.hardware import fastest_dtype
from server.adapters.adapter import Adapter
from server.adapters.generator import BatchGenerator
from server.adapters.memory import MemoryStore
from tests.benchmarks.context import BenchContext, descriptions
from tests.benchmarks.measure import Comparison

COUNT = 256


async def run(context: BenchContext) -> list[Comparison]:
    """Measured in a process of its own, whose memory grows for no other reason."""
    rounds = 1 if context.quick else 2
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pairs = [pool.apply(grow, (context.checkpoint, n)) for n in range(rounds)]
    grown, own = ([pair[i] / 2**10 for pair in pairs] for i in (0, 1))
    return [Comparison(f"memory per adapter, {COUNT} cached: resident / weights", "<= 1.1", grown, own, "KiB")]


def grow(checkpoint: Path, number: int) -> tuple[float, float]:
    """Growth of this process and bytes of the weights, both per adapter."""
    import psutil

    torch.set_num_threads(1)  # as in the server
    generate, store, process = (
        BatchGenerator(Generator.load(checkpoint, dtype=fastest_dtype("cpu"))),
        MemoryStore(2**40),
        psutil.Process(),
    )
    names = descriptions(2 * COUNT, f"memory {number}")

    def keep(chosen: list[str]) -> None:
        for start in range(0, len(chosen), 16):
            part = chosen[start : start + 16]
            for name, generated in zip(part, generate(part), strict=True):
                store.put(Adapter.from_weights(name, name, 0, generated.weights))

    keep(names[:COUNT])  # until the allocator has enough working memory
    before, held = process.memory_info().rss, store.nbytes
    keep(names[COUNT:])
    return (process.memory_info().rss - before) / COUNT, (store.nbytes - held) / COUNT
