"""Sixteen streams at once, on whatever can stream: tokens per second and time to the first token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx

from hypernet.lora import LoraWeights
from server.bench.client import Sample, ask
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine

STREAMS = 16


async def together(stream: Callable[[int], Awaitable[list[float]]], streams: int = STREAMS) -> float:
    """Tokens per second while all streams decode: reading the prompts is not what is measured.

    Args:
        stream: runs stream i; when each of its tokens came.
        streams: how many at once.
    """
    times = await asyncio.gather(*map(stream, range(streams)))
    start, end = max(t[0] for t in times), min(t[-1] for t in times)
    made = sum(start < at <= end for t in times for at in t)
    if not made:
        raise RuntimeError("a stream ended before another began: there was no moment with all of them")
    return made / (end - start)


def prompt(number: int) -> str:
    """Different from its first words on, so that no prefix cache answers for the engine."""
    return f"{number}: tell me a long story about the sea."


async def on_engine(
    engine: VllmEngine, number: int, tokens: int, name: str, weights: LoraWeights | None
) -> list[float]:
    """One stream on an engine in this process; when each token came."""
    ids = engine.tokenize([{"role": "user", "content": prompt(number)}], None)
    sampling, times = Sampling(tokens, temperature=1.0, seed=number), list[float]()
    async with AsyncExitStack() as held:
        lease = await held.enter_async_context(engine.lease(name, weights)) if weights else None
        async for _ in engine.generate(ids, sampling, lease, "bench"):
            times.append(time.perf_counter())
    return times


async def on_ours(http: httpx.AsyncClient, number: int, tokens: int, description: str | None) -> Sample:
    """One stream of our server."""
    body = {"prompt": prompt(number), "task_description": description, "max_tokens": tokens}
    sample = await ask(http, body | {"temperature": 1.0, "seed": number}, time.perf_counter)
    if sample.error:
        raise RuntimeError(f"our server answered {sample.error}; see runs/bench-ours.log")
    return sample


async def on_stock(http: httpx.AsyncClient, number: int, tokens: int, model: str) -> list[float]:
    """One stream of vLLM's server; when each token came."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt(number)}],
        "max_tokens": tokens,
        "temperature": 1.0,
        "seed": number,
        "stream": True,
    }
    times: list[float] = []
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"stock vLLM answered {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            # The first event only names the role, the last only the reason to finish.
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    return times


async def load_on_stock(http: httpx.AsyncClient, name: str, folder: str) -> None:
    """Have vLLM's server read an adapter from disk."""
    reply = await http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": folder})
    if reply.status_code != 200:
        raise RuntimeError(f"stock vLLM did not load {folder}: {reply.text}")
