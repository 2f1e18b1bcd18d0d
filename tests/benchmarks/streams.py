"""Sixteen streams at once, on whatever can stream: tokens per second and time to the first token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from hypernet.lora import LoraWeights
from server.bench.client import Sample, ask
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine

STREAMS = 16


async def together(stream: Callable[[int], Awaitable[int]], streams: int = STREAMS) -> float:
    """Tokens per second of all streams together; `stream(i)` runs stream i and returns its tokens."""
    started = time.perf_counter()
    made = sum(await asyncio.gather(*map(stream, range(streams))))
    return made / (time.perf_counter() - started)


def prompt(number: int) -> str:
    """Different from its first words on, so that no prefix cache answers for the engine."""
    return f"{number}: tell me a long story about the sea."


async def on_engine(
    engine: VllmEngine, number: int, tokens: int, name: str, weights: LoraWeights | None
) -> int:
    """One stream on an engine in this process; tokens made."""
    ids = engine.tokenize([{"role": "user", "content": prompt(number)}], None)
    sampling, made = Sampling(tokens, temperature=1.0, seed=number), 0
    if weights is None:
        async for delta in engine.generate(ids, sampling, None, "bench"):
            made = delta.completion_tokens
        return made
    async with engine.lease(name, weights) as lease:
        async for delta in engine.generate(ids, sampling, lease, "bench"):
            made = delta.completion_tokens
    return made


async def on_ours(http: httpx.AsyncClient, number: int, tokens: int, description: str | None) -> Sample:
    """One stream of our server."""
    body = {"prompt": prompt(number), "task_description": description, "max_tokens": tokens}
    sample = await ask(http, body | {"temperature": 1.0, "seed": number}, time.perf_counter)
    if sample.error:
        raise RuntimeError(f"our server answered {sample.error}; see runs/bench-ours.log")
    return sample


async def on_stock(http: httpx.AsyncClient, number: int, tokens: int, model: str) -> tuple[int, float]:
    """One stream of vLLM's server; tokens made, and seconds to the first."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt(number)}],
        "max_tokens": tokens,
        "temperature": 1.0,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, first, made = time.perf_counter(), 0.0, 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"stock vLLM answered {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                # The first event only names the role.
                if not first and event["choices"] and event["choices"][0]["delta"].get("content"):
                    first = time.perf_counter() - started
                made = (event.get("usage") or {}).get("completion_tokens", made)
    return made, first or time.perf_counter() - started


async def load_on_stock(http: httpx.AsyncClient, name: str, folder: str) -> None:
    """Have vLLM's server read an adapter from disk."""
    reply = await http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": folder})
    if reply.status_code != 200:
        raise RuntimeError(f"stock vLLM did not load {folder}: {reply.text}")
