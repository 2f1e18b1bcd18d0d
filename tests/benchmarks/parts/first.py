"""The first token for a description that nobody ever sent: against the base model, and against others' way."""

from __future__ import annotations

import asyncio
import itertools
import time

from tests.benchmarks.measure import Row, interleaved
from tests.benchmarks.peft_swap import PeftSwap
from tests.benchmarks.streams import load_on_stock, on_ours, on_stock
from tests.benchmarks.world import World, descriptions

CROWD = 64


async def run(world: World) -> list[Row]:
    """Alone on an idle machine, then sixty-four at once."""
    return [*await alone(world), *await crowd(world)]


async def alone(world: World) -> list[Row]:
    """Milliseconds to the first token of a lone request."""
    rounds = 4 if world.quick else 12
    ours, stock, peft = await world.ours(), await world.stock(), PeftSwap(world)
    numbers = itertools.count(1000)
    new = descriptions(rounds + 1, "alone")
    folders = [world.on_disk(f"new-{i}", w) for i, w in enumerate(world.generator.generate(new))]

    async def first(description: str | None) -> float:
        return 1e3 * (await on_ours(ours, next(numbers), 2, description)).first

    async def from_disk(round_: int) -> float:
        started = time.perf_counter()
        await load_on_stock(stock, f"new-{round_}", str(folders[round_]))
        return 1e3 * ((await on_stock(stock, next(numbers), 2, f"new-{round_}"))[0] - started)

    for _ in range(3):  # warm, with the description that stays warm
        await first(new[-1])
        await first(None)
    seen = await interleaved(
        rounds,
        {
            "new": lambda n: first(new[n]),
            "warm": lambda _: first(new[-1]),
            "base": lambda _: first(None),
            "stock": from_disk,
            "peft": lambda n: 1e3 * peft.first_token(folders[n], next(numbers)),
        },
    )
    name = "first token: description never seen"
    return [
        Row(f"{name} / base model, idle machine", "<= 1.25", seen["new"], seen["base"], "ms"),
        Row("first token: adapter in the engine / base model", "", seen["warm"], seen["base"], "ms"),
        Row(f"{name} / stock vLLM, adapter ready on disk", "", seen["new"], seen["stock"], "ms"),
        Row(f"{name} / transformers + PEFT, adapter ready on disk", "", seen["new"], seen["peft"], "ms"),
    ]


async def crowd(world: World) -> list[Row]:
    """Milliseconds until the last of sixty-four requests has its first token."""
    ours = await world.ours()
    count = 16 if world.quick else CROWD
    numbers = itertools.count(5000)

    async def last_first(names: list[str]) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        samples = await asyncio.gather(*(on_ours(ours, next(numbers), 2, name) for name in names))
        return 1e3 * (max(sample.due + sample.first for sample in samples) - started)

    cold, warm = [], []
    for n in range(2):
        names = descriptions(count, f"crowd {n}")
        cold.append(await last_first(names))
        warm.append(await last_first(names))
    what = f"{count} descriptions at once, last first token"
    return [Row(f"{what}: never seen / adapters warm", "<= 1.5", cold, warm, "ms")]
