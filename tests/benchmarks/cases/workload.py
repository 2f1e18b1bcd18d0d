"""A random workload on our server, as `t2l bench serve` sends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from server.bench.load import run_workload
from server.bench.report import summarise, table
from server.bench.workload import Workload
from tests.benchmarks.context import BenchContext


async def run(context: BenchContext) -> dict[str, Any]:
    """Send half of the load that the server can serve, so that latencies contain no queueing."""
    t2l = await context.t2l_server()
    workload = Workload(rate=1.0, seconds=10 if context.quick else 40, max_tokens=16)
    summary = summarise(await run_workload(str(t2l.base_url), workload))
    print(table(summary) + "\n", flush=True)
    return {"workload": asdict(workload), **summary}
