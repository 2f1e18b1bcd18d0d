"""Throughput and latency as functions of the number of descriptions, of streams,
and of the rank.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from hypernet.lora import LoraWeights
from server.bench.report import percentile
from server.engine.vllm import VllmEngine
from tests.benchmarks.context import NUM_ADAPTERS, BenchContext, descriptions
from tests.benchmarks.figures import Curve, draw
from tests.benchmarks.streams import stream_from_engine, stream_from_t2l

STREAMS, TOKENS = 16, 16
DESCRIPTION_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STREAM_COUNTS = (1, 2, 4, 8, 16, 32, 64)
RANKS = (4, 16, 32, 64)
"""Rank 8 is left out: vLLM has no slots between ranks 1 and 8, so it costs as much as rank 4."""

PROMPTS = itertools.count(100_000)
"""Numbers of prompts. No prompt is used twice, so that no prefix cache hides work."""

Request = Callable[[int], Awaitable[list[float]]]
"""Sends request i. Returns its sending time and the arrival time of each chunk."""


async def run(context: BenchContext) -> dict[str, Any]:
    """Measure all curves. A full run also draws docs/figures/growth-*.svg."""
    curves = {
        "descriptions": await grow_descriptions(
            context, DESCRIPTION_COUNTS[::4] if context.quick else DESCRIPTION_COUNTS
        ),
        "streams": await grow_streams(context, STREAM_COUNTS[::3] if context.quick else STREAM_COUNTS),
        "rank": await grow_rank(context, RANKS[::3] if context.quick else RANKS),
    }
    for name, curve in curves.items():
        print(
            f"{curve.axis}: "
            + ", ".join(f"{x}: {r:.0f} tok/s" for x, r in zip(curve.x, curve.tokens_per_s, strict=True))
        )
        if not context.quick:
            draw(name, curve)
    return {name: asdict(curve) for name, curve in curves.items()}


async def grow_descriptions(context: BenchContext, counts: tuple[int, ...]) -> Curve:
    """Sixteen streams with a growing number of descriptions,
    whose adapters were generated before.
    """
    t2l, curve = await context.t2l_server(), Curve("descriptions in use")
    names, rng = descriptions(max(counts), "growth"), random.Random(0)
    known = 0
    for count in counts:
        requests = 2 * STREAMS if context.quick else 4 * STREAMS
        drawn = [names[rng.randrange(count)] for _ in range(requests)]

        async def make(i: int) -> None:
            await stream_from_t2l(t2l, next(PROMPTS), 1, names[i])

        for start in range(known, count, STREAMS):
            await asyncio.gather(*map(make, range(start, min(start + STREAMS, count))))
        known = count

        async def request(i: int, drawn: list[str] = drawn) -> list[float]:
            record = await stream_from_t2l(t2l, next(PROMPTS), TOKENS, drawn[i])
            return [record.scheduled_at, *record.chunk_times]

        await measure(curve, count, request, requests, STREAMS)
    return curve


async def grow_streams(context: BenchContext, counts: tuple[int, ...]) -> Curve:
    """A growing number of streams with eight adapters."""
    t2l, curve = await context.t2l_server(), Curve("streams")
    names = descriptions(NUM_ADAPTERS, "stream")

    async def request(i: int) -> list[float]:
        record = await stream_from_t2l(t2l, next(PROMPTS), TOKENS, names[i % NUM_ADAPTERS])
        return [record.scheduled_at, *record.chunk_times]

    await measure(Curve(""), 0, request, NUM_ADAPTERS, NUM_ADAPTERS)  # warm-up
    for count in counts:
        await measure(curve, count, request, max(NUM_ADAPTERS, 2 * count), count)
    return curve


async def grow_rank(context: BenchContext, counts: tuple[int, ...]) -> Curve:
    """Sixteen streams with eight adapters of a growing rank, on an engine without a server."""
    curve = Curve("rank")
    for rank in counts:
        spec = context.config.lora.model_copy(update={"rank": rank})
        adapters = [LoraWeights.unflatten(spec, torch.randn(spec.num_parameters)) for _ in range(NUM_ADAPTERS)]
        engine = VllmEngine(replace(context.config, lora=spec))
        try:
            await engine.start()

            async def request(
                i: int, engine: VllmEngine = engine, adapters: list[LoraWeights] = adapters
            ) -> list[float]:
                sent = time.perf_counter()
                times = await stream_from_engine(
                    engine, next(PROMPTS), TOKENS, f"a{i % NUM_ADAPTERS}", adapters[i % NUM_ADAPTERS]
                )
                return [sent, *times]

            await measure(Curve(""), rank, request, NUM_ADAPTERS, NUM_ADAPTERS)  # warm-up
            await measure(curve, rank, request, 2 * STREAMS, STREAMS)
        finally:
            await engine.stop()
    return curve


async def measure(curve: Curve, x: int, request: Request, requests: int, streams: int) -> None:
    """Run a number of streams until all requests have finished, and add the point to the curve."""
    numbers, seen = iter(range(requests)), list[list[float]]()

    async def stream() -> None:
        for i in numbers:
            seen.append(await request(i))

    started = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(streams)))
    took = time.perf_counter() - started
    firsts = [1e3 * (times[1] - times[0]) for times in seen]
    curve.x.append(x)
    curve.tokens_per_s.append(requests * TOKENS / took)
    curve.first_p50_ms.append(percentile(firsts, 50))
    curve.first_p95_ms.append(percentile(firsts, 95))
