"""A realistic load on our server, as `t2l bench serve` sends it; numbers, no ratio."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from server.bench.load import run as send
from server.bench.mix import Mix
from server.bench.report import summarise, table
from tests.benchmarks.world import World


async def run(world: World) -> dict[str, Any]:
    """Half of what the server can do, so that latency is that of the work and not of a queue."""
    ours = await world.ours()
    mix = Mix(rate=1.0, seconds=10 if world.quick else 40, max_tokens=16)
    summary = summarise(await send(str(ours.base_url), mix))
    print(table(summary) + "\n", flush=True)
    return {"mix": asdict(mix), **summary}
