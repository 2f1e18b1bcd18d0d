"""How cost grows: with the descriptions in play, with the streams, and with the rank. Curves, no targets."""

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
from tests.benchmarks.figures import Curve, draw
from tests.benchmarks.streams import on_engine, on_ours
from tests.benchmarks.world import ADAPTERS, World, descriptions

STREAMS, TOKENS = 16, 16
IN_PLAY = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COMPANY = (1, 2, 4, 8, 16, 32, 64)
RANKS = (4, 16, 32, 64)
"""Rank 8 has the slots of rank 4: vLLM knows no smaller ones but 1."""

PROMPTS = itertools.count(100_000)
"""No prompt twice, so that no prefix cache answers."""

Request = Callable[[int], Awaitable[list[float]]]
"""Sends request number i; when it was sent, and when each of its pieces came."""


async def run(world: World) -> dict[str, Any]:
    """Draw docs/figures/growth-*.svg, unless it is a quick look; the same numbers for runs/bench.json."""
    curves = {
        "descriptions": await in_play(world, IN_PLAY[::4] if world.quick else IN_PLAY),
        "streams": await company(world, COMPANY[::3] if world.quick else COMPANY),
        "rank": await ranks(world, RANKS[::3] if world.quick else RANKS),
    }
    for name, curve in curves.items():
        print(
            f"{curve.axis}: "
            + ", ".join(f"{x}: {r:.0f} tok/s" for x, r in zip(curve.x, curve.tokens_per_s, strict=True))
        )
        if not world.quick:
            draw(name, curve)
    return {name: asdict(curve) for name, curve in curves.items()}


async def in_play(world: World, counts: tuple[int, ...]) -> Curve:
    """Sixteen streams whose descriptions are drawn from more and more, all of them made before."""
    ours, curve = await world.ours(), Curve("descriptions in play")
    names, rng = descriptions(max(counts), "growth"), random.Random(0)
    known = 0
    for count in counts:
        requests = 2 * STREAMS if world.quick else 4 * STREAMS
        drawn = [names[rng.randrange(count)] for _ in range(requests)]

        async def make(i: int) -> None:
            await on_ours(ours, next(PROMPTS), 1, names[i])

        for start in range(known, count, STREAMS):
            await asyncio.gather(*map(make, range(start, min(start + STREAMS, count))))
        known = count

        async def request(i: int, drawn: list[str] = drawn) -> list[float]:
            sample = await on_ours(ours, next(PROMPTS), TOKENS, drawn[i])
            return [sample.due, *sample.pieces]

        await measure(curve, count, request, requests, STREAMS)
    return curve


async def company(world: World, counts: tuple[int, ...]) -> Curve:
    """More and more streams over eight adapters."""
    ours, curve = await world.ours(), Curve("streams")
    names = descriptions(ADAPTERS, "stream")

    async def request(i: int) -> list[float]:
        sample = await on_ours(ours, next(PROMPTS), TOKENS, names[i % ADAPTERS])
        return [sample.due, *sample.pieces]

    await measure(Curve(""), 0, request, ADAPTERS, ADAPTERS)  # made
    for count in counts:
        await measure(curve, count, request, max(ADAPTERS, 2 * count), count)
    return curve


async def ranks(world: World, counts: tuple[int, ...]) -> Curve:
    """Sixteen streams over eight adapters of a rank, on an engine with slots for it and no server."""
    curve = Curve("rank")
    for rank in counts:
        spec = world.config.lora.model_copy(update={"rank": rank})
        adapters = [LoraWeights.unflatten(spec, torch.randn(spec.num_parameters)) for _ in range(ADAPTERS)]
        engine = VllmEngine(replace(world.config, lora=spec))
        try:
            await engine.start()

            async def request(
                i: int, engine: VllmEngine = engine, adapters: list[LoraWeights] = adapters
            ) -> list[float]:
                sent = time.perf_counter()
                times = await on_engine(
                    engine, next(PROMPTS), TOKENS, f"a{i % ADAPTERS}", adapters[i % ADAPTERS]
                )
                return [sent, *times]

            await measure(Curve(""), rank, request, ADAPTERS, ADAPTERS)  # loaded
            await measure(curve, rank, request, 2 * STREAMS, STREAMS)
        finally:
            await engine.stop()
    return curve


async def measure(curve: Curve, x: int, request: Request, requests: int, streams: int) -> None:
    """Keep some streams busy until all requests are answered, prompts and all, and add the point."""
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
