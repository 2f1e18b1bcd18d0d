"""Streams of completions from each system under test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx

from hypernet.lora import LoraWeights
from server.bench.client import RequestRecord, send_request
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine

STREAMS = 16


async def decode_throughput(stream: Callable[[int], Awaitable[list[float]]], streams: int = STREAMS) -> float:
    """Tokens per second while all streams decode. Prefill is not measured.

    Args:
        stream: runs stream i and returns the arrival time of each token.
        streams: number of concurrent streams.
    """
    times = await asyncio.gather(*map(stream, range(streams)))
    start, end = max(t[0] for t in times), min(t[-1] for t in times)
    made = sum(start < at <= end for t in times for at in t)
    if not made:
        raise RuntimeError("a stream ended before another began: use more tokens")
    return made / (end - start)


def prompt(number: int) -> str:
    """A prompt whose first tokens differ for each number, so that no prefix cache hides work."""
    return f"{number}: tell me a long story about the sea."


async def stream_from_engine(
    engine: VllmEngine, number: int, tokens: int, name: str, weights: LoraWeights | None
) -> list[float]:
    """One stream of an engine in this process. Returns the arrival time of each token."""
    ids = engine.tokenize([{"role": "user", "content": prompt(number)}], None)
    sampling, times = Sampling(tokens, temperature=1.0, seed=number), list[float]()
    async with AsyncExitStack() as held:
        lease = await held.enter_async_context(engine.lease(name, weights)) if weights else None
        async for _ in engine.generate(ids, sampling, lease, "bench"):
            times.append(time.perf_counter())
    return times


async def stream_from_t2l(
    http: httpx.AsyncClient, number: int, tokens: int, description: str | None
) -> RequestRecord:
    """One stream of our server."""
    body = {"prompt": prompt(number), "task_description": description, "max_tokens": tokens}
    record = await send_request(http, body | {"temperature": 1.0, "seed": number}, time.perf_counter)
    if record.error:
        raise RuntimeError(f"our server failed with {record.error}. Its log is runs/bench-t2l.log")
    return record


async def stream_from_vllm(http: httpx.AsyncClient, number: int, tokens: int, model: str) -> list[float]:
    """One stream of vLLM's server. Returns the arrival time of each token."""
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
            raise RuntimeError(f"vLLM's server failed: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            # The first event contains only the role, the last one only the finish reason.
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    return times


async def load_adapter_in_vllm(http: httpx.AsyncClient, name: str, folder: str) -> None:
    """Make vLLM's server load an adapter from disk."""
    reply = await http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": folder})
    if reply.status_code != 200:
        raise RuntimeError(f"vLLM's server could not load {folder}: {reply.text}")
