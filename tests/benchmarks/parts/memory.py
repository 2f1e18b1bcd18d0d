"""What an adapter costs in the server's memory, beside its own bytes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch

from hypernet.generator import Generator
from hypernet.hardware import fastest_dtype
from server.adapters.adapter import Adapter
from server.adapters.generator import BatchGenerator
from server.adapters.memory import MemoryStore
from tests.benchmarks.measure import Row
from tests.benchmarks.world import World, descriptions

COUNT = 256


async def run(world: World) -> list[Row]:
    """In a process of its own, where nothing else grows."""
    rounds = 1 if world.quick else 2
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pairs = [pool.apply(grow, (world.checkpoint, n)) for n in range(rounds)]
    grown, own = ([pair[i] / 2**10 for pair in pairs] for i in (0, 1))
    return [Row(f"memory per adapter, {COUNT} kept: resident / its own bytes", "<= 1.1", grown, own, "KiB")]


def grow(checkpoint: Path, number: int) -> tuple[float, float]:
    """Growth of this process and bytes of the weights, per adapter."""
    import psutil

    torch.set_num_threads(1)  # as the server has it
    write, store, me = (
        BatchGenerator(Generator.load(checkpoint, dtype=fastest_dtype("cpu"))),
        MemoryStore(2**40),
        psutil.Process(),
    )
    names = descriptions(2 * COUNT, f"memory {number}")

    def keep(chosen: list[str]) -> None:
        for start in range(0, len(chosen), 16):
            part = chosen[start : start + 16]
            for name, written in zip(part, write(part), strict=True):
                store.put(Adapter.from_weights(name, name, 0, written.weights))

    keep(names[:COUNT])  # until the allocator has all the working space that it will ever want
    before, held = me.memory_info().rss, store.nbytes
    keep(names[COUNT:])
    return (me.memory_info().rss - before) / COUNT, (store.nbytes - held) / COUNT
