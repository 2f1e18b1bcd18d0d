"""Sends a workload to a server.

Each request is sent at its time, whether or not others have finished.
"""

from __future__ import annotations

import asyncio

import httpx

from server.bench.client import RequestRecord, send_request
from server.bench.workload import Arrival, Workload, schedule


async def run_workload(url: str, workload: Workload, timeout_s: float = 300.0) -> list[RequestRecord]:
    """Send the requests of a workload at their times. Returns one record per request, in order of
    arrival.

    Args:
        url: URL of the server, such as `http://127.0.0.1:8000`.
        workload: the workload.
        timeout_s: seconds without data after which a request counts as failed.
    """
    clock = asyncio.get_running_loop().time
    # No limit on connections: a client that waits for a connection would not be an open loop.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits) as http:
        start = clock()

        async def send(arrival: Arrival) -> RequestRecord:
            scheduled_at = start + arrival.at
            await asyncio.sleep(scheduled_at - clock())
            body = {
                "prompt": arrival.prompt,
                "task_description": arrival.description,
                "max_tokens": workload.max_tokens,
                "temperature": 1.0,
                "seed": arrival.seed,
            }
            return await send_request(http, body, clock, scheduled_at)

        return await asyncio.gather(*map(send, schedule(workload)))
