"""Adapters on the real engine: each request gets its adapter's answer, independent of its batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from hypernet.lora import LoraWeights
from hypernet.peft_io import save_adapter
from server.engine.vllm import VllmEngine
from server.errors import AdapterRejectedError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

CLOSE = 0.05
"""Bound on the mean difference of log-probabilities by bf16,
and half of an adapter's minimum effect.
"""
NEAR_TIE = 0.5
"""Margin in log-probability that bf16 rounding in 30 layers can reverse.

The largest seen was 0.16.
"""


@pytest.fixture(scope="module")
def reference(base_model: Path) -> Any:
    """The base model in transformers, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)


def logprobs_of(model: Any, prompt: list[int], tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of an answer's tokens, and of the most probable token at each position."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    return logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0], logprobs.max(1).values


@pytest.mark.parametrize("rslora", [True, False])
async def test_answers_match_peft_with_the_same_adapter(
    rslora: bool, engine: VllmEngine, make_adapter: Any, prompts: Any, ask: Any, reference: Any, tmp_path: Path
) -> None:
    """Includes the scale: 5.66 with rank stabilisation and 2 without give different answers."""
    from peft import PeftModel

    weights = make_adapter(1, size=0.025 if rslora else 0.04, use_rslora=rslora)  # B A of similar size
    save_adapter(tmp_path, weights, "small")
    async with engine.lease(f"peft-{rslora}", weights) as lease:
        answers = [await ask(prompt, lease) for prompt in prompts[:3]]
    model = PeftModel.from_pretrained(reference, tmp_path)
    moved = []
    try:
        for prompt, answer in zip(prompts, answers, strict=False):
            expected, best = logprobs_of(model, prompt, answer.tokens)
            with model.disable_adapter():
                without, _ = logprobs_of(model, prompt, answer.tokens)
            served = torch.tensor(answer.logprobs)
            moved.append((served - without).abs().mean().item())
            assert (served - expected).abs().mean() < CLOSE
            assert (best - expected).max() < NEAR_TIE  # each token is PEFT's, or nearly ties with it
    finally:
        model.unload()
    assert sum(moved) / len(moved) > 2 * CLOSE  # the adapter has a clear effect


async def test_base_request_is_unaffected_by_adapted_requests_in_its_batch(
    engine: VllmEngine, make_adapter: Any, prompts: Any, ask: Any
) -> None:
    """Equal bit for bit to its answer in a batch of base requests.

    Its answer alone may differ: torch's bf16 product of one row sums in another order than that of
    more rows, with or without LoRA. So a second request runs throughout, first base, then adapted.
    """

    async def beside(companion: Any) -> Any:
        begun = asyncio.Event()
        others = asyncio.create_task(ask(prompts[0], companion, tokens=800, begun=begun))
        await begun.wait()
        answers = [await ask(prompt) for prompt in prompts[:5]]
        assert not others.done()
        others.cancel()
        return answers

    base = await beside(None)
    async with AsyncExitStack() as leases:  # all slots are full, including the last
        loud = [
            await leases.enter_async_context(engine.lease(f"l{i}", make_adapter(i, 0.05))) for i in range(4)
        ]
        adapted = await beside(loud[0])
    assert [answer.tokens for answer in adapted] == [answer.tokens for answer in base]
    assert [answer.logprobs for answer in adapted] == [answer.logprobs for answer in base]


async def test_batching_changes_an_answer_only_where_two_tokens_nearly_tie(
    engine: VllmEngine, make_adapter: Any, prompts: Any, ask: Any
) -> None:
    alone = [await ask(prompt) for prompt in prompts]
    async with AsyncExitStack() as leases:
        held = [await leases.enter_async_context(engine.lease(f"c{i}", make_adapter(i))) for i in range(4)]
        others = [ask(prompt, held[i % 4]) for i, prompt in enumerate(prompts)]
        together = (await asyncio.gather(*map(ask, prompts), *others))[: len(prompts)]
    for one, other in zip(alone, together, strict=True):
        pairs = zip(one.tokens, other.tokens, strict=True)
        parting = next((i for i, (a, b) in enumerate(pairs) if a != b), len(one.tokens))
        same = slice(0, parting)
        difference = torch.tensor(one.logprobs[same]) - torch.tensor(other.logprobs[same])
        assert bool((difference.abs() < NEAR_TIE).all())
        assert parting == len(one.tokens) or one.leads[parting] < NEAR_TIE


async def test_mixed_requests_with_more_adapters_than_slots_all_finish(
    engine: VllmEngine, make_adapter: Any, prompts: Any, complete: Any
) -> None:
    adapters = [make_adapter(seed) for seed in range(10)]

    async def one(i: int) -> int:
        prompt = prompts[i % len(prompts)]
        if i % 3 == 0:
            return (await complete(engine, prompt, max_tokens=8))[-1].completion_tokens
        async with engine.lease(f"many-{i % 10}", adapters[i % 10]) as lease:
            return (await complete(engine, prompt, lease, max_tokens=8))[-1].completion_tokens

    assert all(1 <= tokens <= 8 for tokens in await asyncio.gather(*map(one, range(64))))
    assert engine.stats() == {"slots": 4, "resident": 4, "in_flight": 0, "waiting": 0}
    assert len(await engine._llm.list_loras()) == 4


async def test_reloaded_adapter_gives_the_same_answer(
    engine: VllmEngine, make_adapter: Any, prompts: Any, ask: Any
) -> None:
    weights = make_adapter(5)

    async def answer() -> tuple[int, list[int], list[float]]:
        async with engine.lease("returning", weights) as lease:
            handle: Any = lease.handle
            got = await ask(prompts[1], lease)
            return handle.int_id, got.tokens, got.logprobs

    first = await answer()
    for i in range(4):
        async with engine.lease(f"crowd-{i}", make_adapter(20 + i)):
            pass
    second = await answer()
    assert first[0] != second[0]
    assert first[1:] == second[1:]


async def test_lower_rank_adapter_overwrites_the_whole_slot(
    engine: VllmEngine, make_adapter: Any, prompts: Any, ask: Any
) -> None:
    small: LoraWeights = make_adapter(6, rank=2)

    async def answer() -> list[int]:
        async with engine.lease("small", small) as lease:
            return (await ask(prompts[2], lease)).tokens

    first = await answer()
    for i in range(4):
        async with engine.lease(f"full-{i}", make_adapter(30 + i, size=0.05)):
            pass
    assert await answer() == first


async def test_rejected_adapter_leaves_others_unaffected(
    engine: VllmEngine, make_adapter: Any, prompts: Any, complete: Any
) -> None:
    weights: LoraWeights = make_adapter(7)
    weights.a["q_proj"][3, 0, 0] = torch.nan
    before = engine.resident
    with pytest.raises(AdapterRejectedError, match=r"q_proj\.A"):
        async with engine.lease("broken", weights):
            pass
    assert engine.resident in (before, before - 1)  # an idle adapter may have been evicted
    assert len(await engine._llm.list_loras()) == engine.resident
    async with engine.lease("broken", make_adapter(7)) as lease:
        assert await complete(engine, prompts[0], lease)


async def test_evicted_adapter_leaves_vllm_when_its_lease_ends(engine: VllmEngine, make_adapter: Any) -> None:
    async with engine.lease("evictable", make_adapter(8)) as lease:
        handle: Any = lease.handle
        await engine.evict("evictable")
        assert handle.int_id in await engine._llm.list_loras()
    await until(lambda: not engine._adapters._background_tasks)
    assert handle.int_id not in await engine._llm.list_loras()


async def test_closing_the_stream_aborts_the_request_and_ends_its_lease(
    engine: VllmEngine, make_adapter: Any, prompts: Any
) -> None:
    from server.engine.interface import Sampling

    async with engine.lease("aborted", make_adapter(9)) as lease:
        stream = engine.generate(prompts[0], Sampling(max_tokens=900), lease, "long")
        await anext(aiter(stream))
        assert engine._llm.get_num_unfinished_requests() == 1
        await stream.aclose()
        assert engine._llm.get_num_unfinished_requests() == 0
    assert engine.stats()["in_flight"] == 0


async def test_cancelled_request_ends_its_lease(
    engine: VllmEngine, make_adapter: Any, prompts: Any, complete: Any
) -> None:
    async def request() -> None:
        async with engine.lease("cancelled", make_adapter(10)) as lease:
            await complete(engine, prompts[0], lease, max_tokens=900)

    task = asyncio.create_task(request())
    await until(lambda: engine._llm.get_num_unfinished_requests() == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine._llm.get_num_unfinished_requests() == 0
    assert engine.stats()["in_flight"] == 0


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll a condition."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - vLLM's books signal nothing
            await asyncio.sleep(0.01)
