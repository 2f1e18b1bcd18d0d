"""Each speed-up of the engine room can be switched on and off, and answers stay what they are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from server.engine.config import EngineConfig
from server.engine.vllm import VllmEngine

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

SWITCHES: tuple[dict[str, str], ...] = (
    {},
    {"T2L_STACKED_SLOTS": "0"},
    {"T2L_CPU_LORA_KERNEL": "products"},
    {"T2L_CPU_LORA_KERNEL": "0"},
    {"T2L_CPU_OPS": "0"},
    {"T2L_SHARE_DEVICE_MEMORY": "1"},
)


async def test_mixed_streams_say_the_same_with_each_switch_turned(
    engine_config: EngineConfig, make_adapter: Any, complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, where the company that a request is in changes no rounding that matters.

    Every request has an adapter: to base requests beside adapted ones vLLM's own operator is known
    to answer wrongly, and that is held elsewhere.
    """
    adapters = [make_adapter(seed) for seed in range(6)]  # more than there are slots
    said = []
    for switches in SWITCHES:
        for name in {name for each in SWITCHES for name in each}:
            monkeypatch.delenv(name, raising=False)
        for name, value in switches.items():
            monkeypatch.setenv(name, value)
        lends = "T2L_SHARE_DEVICE_MEMORY" in switches  # the one that the front end reads, not the core
        engine = VllmEngine(replace(engine_config, dtype="float32", share_device_memory=lends))
        try:
            await engine.start()
            prompt = engine.tokenize([{"role": "user", "content": "Name three fruits."}], None)

            async def one(i: int, engine: VllmEngine = engine, prompt: list[int] = prompt) -> str:
                async with engine.lease(f"s{i % 6}", adapters[i % 6]) as lease:
                    return "".join(d.text for d in await complete(engine, prompt, lease, max_tokens=8))

            together = await asyncio.gather(*map(one, range(12)))
            assert together[:6] == [await one(i) for i in range(6)] == together[6:]
            said.append(together)
        finally:
            await engine.stop()
    assert all(one == said[0] for one in said)
    assert len(set(said[0])) > 1
