"""Time to the first token for a new description, against the base model and against other
systems.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from tests.benchmarks.context import BenchContext, descriptions
from tests.benchmarks.measure import Comparison, run_interleaved
from tests.benchmarks.peft_swap import PeftSwap
from tests.benchmarks.streams import load_adapter_in_vllm, stream_from_t2l, stream_from_vllm

CONCURRENT = 64


async def run(context: BenchContext) -> list[Comparison]:
    """One request on an idle machine, then 64 concurrent requests."""
    return [*await single_request(context), *await concurrent_requests(context)]


async def single_request(context: BenchContext) -> list[Comparison]:
    """Milliseconds to the first token of a single request."""
    rounds = 4 if context.quick else 12
    t2l, vllm, peft = await context.t2l_server(), await context.vllm_server(), PeftSwap(context)
    numbers = itertools.count(1000)
    new = descriptions(rounds + 1, "alone")
    folders = [
        context.save_adapter_folder(f"new-{i}", w) for i, w in enumerate(context.generator.generate(new))
    ]

    async def first(description: str | None) -> float:
        return 1e3 * (await stream_from_t2l(t2l, next(numbers), 2, description)).time_to_first_token

    async def from_disk(round_: int) -> float:
        started = time.perf_counter()
        await load_adapter_in_vllm(vllm, f"new-{round_}", str(folders[round_]))
        return 1e3 * ((await stream_from_vllm(vllm, next(numbers), 2, f"new-{round_}"))[0] - started)

    for _ in range(3):  # warm-up, with the description whose adapter stays in the engine
        await first(new[-1])
        await first(None)
    seen = await run_interleaved(
        rounds,
        {
            "new": lambda n: first(new[n]),
            "warm": lambda _: first(new[-1]),
            "base": lambda _: first(None),
            "vllm": from_disk,
            "peft": lambda n: 1e3 * peft.first_token(folders[n], next(numbers)),
        },
    )
    name = "first token: new description"
    return [
        Comparison(f"{name} / base model, idle machine", "<= 1.25", seen["new"], seen["base"], "ms"),
        Comparison("first token: adapter in the engine / base model", "", seen["warm"], seen["base"], "ms"),
        Comparison(f"{name} / vLLM's server, adapter on disk", "", seen["new"], seen["vllm"], "ms"),
        Comparison(f"{name} / transformers + PEFT, adapter on disk", "", seen["new"], seen["peft"], "ms"),
    ]


async def concurrent_requests(context: BenchContext) -> list[Comparison]:
    """Milliseconds until the last of 64 concurrent requests has its first token."""
    t2l = await context.t2l_server()
    count = 16 if context.quick else CONCURRENT
    numbers = itertools.count(5000)

    async def last_first(names: list[str]) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        records = await asyncio.gather(*(stream_from_t2l(t2l, next(numbers), 2, name) for name in names))
        return 1e3 * (max(record.scheduled_at + record.time_to_first_token for record in records) - started)

    cold, warm = [], []
    for n in range(2):
        names = descriptions(count, f"crowd {n}")
        cold.append(await last_first(names))
        warm.append(await last_first(names))
    what = f"last first token of {count} concurrent requests"
    return [Comparison(f"{what}: new descriptions / cached adapters", "<= 1.5", cold, warm, "ms")]
