"""Runs a mix against a server: every request leaves when it is due, whatever became of the others."""

from __future__ import annotations

import asyncio

import httpx

from server.bench.client import Sample, ask
from server.bench.mix import Arrival, Mix, schedule


async def run(url: str, mix: Mix, timeout_s: float = 300.0) -> list[Sample]:
    """Send a mix's requests at their times; one sample for each, in order of arrival.

    Args:
        url: the server, e.g. `http://127.0.0.1:8000`.
        mix: the load.
        timeout_s: how long one request may be silent before it counts as failed.
    """
    clock = asyncio.get_running_loop().time
    # No limit on connections: a client that waits for one would be a closed loop.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits) as http:
        start = clock()

        async def one(arrival: Arrival) -> Sample:
            due = start + arrival.at
            await asyncio.sleep(due - clock())
            body = {
                "prompt": arrival.prompt,
                "task_description": arrival.description,
                "max_tokens": mix.max_tokens,
                "temperature": 1.0,
                "seed": arrival.seed,
            }
            return await ask(http, body, clock, due)

        return await asyncio.gather(*map(one, schedule(mix)))
