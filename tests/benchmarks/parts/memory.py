"""What an adapter costs in the server's memory, beside its own bytes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from measure import Row
from world import World, descriptions

from hypernet.generator import Generator
from server.adapters.adapter import Adapter
from server.adapters.memory import MemoryStore

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

    generator, store, me = Generator.load(checkpoint), MemoryStore(2**40), psutil.Process()
    names = descriptions(COUNT + 32, f"memory {number}")

    def keep(chosen: list[str]) -> None:
        for start in range(0, len(chosen), 16):
            part = chosen[start : start + 16]
            for name, weights in zip(part, generator.generate(part), strict=True):
                store.put(Adapter.seal(name, name, 0, weights))

    keep(names[:32])  # the allocator's own working space
    before, held = me.memory_info().rss, store.nbytes
    keep(names[32:])
    return (me.memory_info().rss - before) / COUNT, (store.nbytes - held) / COUNT
