"""Each optional patch of vLLM changes speed or repairs a fault, and changes no answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from server.engine.config import EngineConfig
from server.engine.patches.selection import PatchSelection
from server.engine.vllm import VllmEngine

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"patches": PatchSelection(stacked_slots=False)},
    {"patches": PatchSelection(cpu_lora="products")},
    {"patches": PatchSelection(cpu_lora="off")},
    {"patches": PatchSelection(cpu_ops=False)},
    {"share_device_memory": True},
)


async def test_adapted_answers_do_not_depend_on_patches(
    engine_config: EngineConfig, make_adapter: Any, complete: Any
) -> None:
    """In float32, in which the other requests of a step change no rounding that matters.

    Every request has an adapter: vLLM's own operator is known to answer base requests wrongly when
    they share a step with adapted ones.
    """
    adapters = [make_adapter(seed) for seed in range(6)]  # more adapters than slots
    answers = []
    for variant in VARIANTS:
        engine = VllmEngine(replace(engine_config, dtype="float32", **variant))
        try:
            await engine.start()
            prompt = engine.tokenize([{"role": "user", "content": "Name three fruits."}], None)

            async def answer(i: int, engine: VllmEngine = engine, prompt: list[int] = prompt) -> str:
                async with engine.lease(f"s{i % 6}", adapters[i % 6]) as lease:
                    return "".join(d.text for d in await complete(engine, prompt, lease, max_tokens=8))

            batched = await asyncio.gather(*map(answer, range(12)))
            assert batched[:6] == [await answer(i) for i in range(6)] == batched[6:]
            answers.append(batched)
        finally:
            await engine.stop()
    assert all(batched == answers[0] for batched in answers)
    assert len(set(answers[0])) > 1
