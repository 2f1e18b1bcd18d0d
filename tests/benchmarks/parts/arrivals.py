"""What running streams notice of new adapters: ten a second are made and loaded beside them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from server.adapters.adapter import Adapter
from server.adapters.thread_priority import lower_thread_priority
from server.bench.report import percentile
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine
from tests.benchmarks.measure import Row, one_thread
from tests.benchmarks.streams import prompt
from tests.benchmarks.world import ADAPTERS, World

RATE = 10
STREAMS = 4


async def run(world: World) -> list[Row]:
    """Gaps between tokens of adapted streams, quiet and with arrivals, in turns."""
    engine, span = await world.engine(), 3.0 if world.quick else 8.0
    gaps: dict[bool, list[list[float]]] = {False: [], True: []}
    names = itertools.count()
    with one_thread(), ThreadPoolExecutor(1, initializer=lower_thread_priority) as thread:
        await arrive(world, engine, thread, names, 0.5)  # warm
        for _ in range(world.rounds):
            for busy in (False, True):
                gaps[busy].append(await watch(world, engine, thread, names, span, busy=busy))
    columns = {p: {busy: [1e3 * percentile(g, p) for g in gaps[busy]] for busy in gaps} for p in (50, 99)}
    what = f"gap between tokens, {STREAMS} streams: {RATE} new adapters/s made and loaded / quiet"
    return [
        Row(f"p99 {what}", "<= 1.2", columns[99][True], columns[99][False], "ms"),
        Row(f"p50 {what}", "", columns[50][True], columns[50][False], "ms"),
    ]


async def watch(
    world: World,
    engine: VllmEngine,
    thread: ThreadPoolExecutor,
    names: Iterator[int],
    span: float,
    *,
    busy: bool,
) -> list[float]:
    """Seconds between tokens of all streams for a while, the first tokens left out."""
    loop, gaps = asyncio.get_running_loop(), list[float]()

    async def stream(i: int) -> None:
        ids = engine.tokenize([{"role": "user", "content": prompt(i)}], None)
        async with engine.lease(f"a{i}", world.adapters[i % ADAPTERS]) as lease:
            last = None
            async for _ in engine.generate(ids, Sampling(1500, temperature=1.0, seed=i), lease, "gaps"):
                now = loop.time()
                if last is not None:
                    gaps.append(now - last)
                last = now

    streams = [asyncio.create_task(stream(i)) for i in range(STREAMS)]
    await asyncio.sleep(1.0)  # prompts read
    gaps.clear()
    if busy:
        await arrive(world, engine, thread, names, span)
    else:
        await asyncio.sleep(span)
    seen = list(gaps)
    for task in streams:
        task.cancel()
    for task in streams:
        with suppress(asyncio.CancelledError):
            await task
    return seen


async def arrive(
    world: World, engine: VllmEngine, thread: ThreadPoolExecutor, names: Iterator[int], span: float
) -> None:
    """New descriptions become adapters in the engine, at a steady rate, as the server makes them."""
    loop = asyncio.get_running_loop()

    async def one(at: float) -> None:
        await asyncio.sleep(at - loop.time())
        name = f"arrival {next(names)}"
        (weights,) = await loop.run_in_executor(thread, world.generator.generate, [name])
        sealed = await asyncio.to_thread(Adapter.from_weights, name, name, 0, weights)
        async with engine.lease(name, sealed.weights):
            pass

    start = loop.time()
    await asyncio.gather(*(one(start + n / RATE) for n in range(int(span * RATE))))
