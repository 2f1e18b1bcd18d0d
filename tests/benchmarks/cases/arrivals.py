"""Effect of new adapters on running streams: ten per second are generated and loaded."""

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
from tests.benchmarks.context import NUM_ADAPTERS, BenchContext
from tests.benchmarks.measure import Comparison, single_thread
from tests.benchmarks.streams import prompt

RATE = 10
STREAMS = 4


async def run(context: BenchContext) -> list[Comparison]:
    """Inter-token latency of adapted streams, with and without new adapters, in turns."""
    engine, span = await context.engine(), 3.0 if context.quick else 8.0
    gaps: dict[bool, list[list[float]]] = {False: [], True: []}
    names = itertools.count()
    with single_thread(), ThreadPoolExecutor(1, initializer=lower_thread_priority) as thread:
        await generate_adapters(context, engine, thread, names, 0.5)  # warm-up
        for _ in range(context.rounds):
            for busy in (False, True):
                gaps[busy].append(await measure_latencies(context, engine, thread, names, span, busy=busy))
    columns = {p: {busy: [1e3 * percentile(g, p) for g in gaps[busy]] for busy in gaps} for p in (50, 99)}
    what = f"inter-token latency, {STREAMS} streams: {RATE} new adapters/s / no new adapters"
    return [
        Comparison(f"p99 {what}", "<= 1.2", columns[99][True], columns[99][False], "ms"),
        Comparison(f"p50 {what}", "", columns[50][True], columns[50][False], "ms"),
    ]


async def measure_latencies(
    context: BenchContext,
    engine: VllmEngine,
    thread: ThreadPoolExecutor,
    names: Iterator[int],
    span: float,
    *,
    busy: bool,
) -> list[float]:
    """Seconds between consecutive tokens of all streams, without the first tokens."""
    loop, gaps = asyncio.get_running_loop(), list[float]()

    async def stream(i: int) -> None:
        ids = engine.tokenize([{"role": "user", "content": prompt(i)}], None)
        async with engine.lease(f"a{i}", context.adapters[i % NUM_ADAPTERS]) as lease:
            last = None
            async for _ in engine.generate(ids, Sampling(1500, temperature=1.0, seed=i), lease, "gaps"):
                now = loop.time()
                if last is not None:
                    gaps.append(now - last)
                last = now

    streams = [asyncio.create_task(stream(i)) for i in range(STREAMS)]
    await asyncio.sleep(1.0)  # prefill
    gaps.clear()
    if busy:
        await generate_adapters(context, engine, thread, names, span)
    else:
        await asyncio.sleep(span)
    seen = list(gaps)
    for task in streams:
        task.cancel()
    for task in streams:
        with suppress(asyncio.CancelledError):
            await task
    return seen


async def generate_adapters(
    context: BenchContext, engine: VllmEngine, thread: ThreadPoolExecutor, names: Iterator[int], span: float
) -> None:
    """Generate and load adapters of new descriptions at a constant rate, as the server does."""
    loop = asyncio.get_running_loop()

    async def generate_one(at: float) -> None:
        await asyncio.sleep(at - loop.time())
        name = f"arrival {next(names)}"
        (weights,) = await loop.run_in_executor(thread, context.generator.generate, [name])
        adapter = await asyncio.to_thread(Adapter.from_weights, name, name, 0, weights)
        async with engine.lease(name, adapter.weights):
            pass

    start = loop.time()
    await asyncio.gather(*(generate_one(start + n / RATE) for n in range(int(span * RATE))))
