"""Fixtures that complete prompts on the session's engine, with and without log-probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from server.engine.interface import Delta, Lease, Sampling
from server.engine.vllm import VllmEngine, _lora_request

QUESTIONS = (
    "Name three fruits.",
    "Write a haiku about rain.",
    "What is 17 times 3?",
    "Explain photosynthesis in one sentence.",
    "Who wrote Hamlet?",
    "Give me a tip for sleeping well.",
    "Why is the sky blue?",
    "Tell me a short joke.",
)


@dataclass(frozen=True)
class GreedyCompletion:
    """A greedy completion: each token's log-probability and its margin to the second-best token."""

    tokens: list[int]
    logprobs: list[float]
    leads: list[float]


Complete = Callable[..., Awaitable[GreedyCompletion]]


@pytest.fixture(scope="session")
def prompts(engine: VllmEngine) -> list[list[int]]:
    """Token ids of a few chat prompts."""
    return [engine.tokenize([{"role": "user", "content": question}], None) for question in QUESTIONS]


@pytest.fixture
def ask(engine: VllmEngine) -> Complete:
    """Complete greedily by vLLM's own `generate`, because ours returns no log-probabilities."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    async def ask(
        prompt: list[int], lease: Lease | None = None, tokens: int = 24, begun: asyncio.Event | None = None
    ) -> GreedyCompletion:
        entry: Any = lease.handle if lease else None
        outputs = engine._llm.generate(
            tokens_input(prompt),
            SamplingParams(
                max_tokens=tokens,
                temperature=0,
                logprobs=2,
                ignore_eos=True,
                output_kind=RequestOutputKind.DELTA,
            ),
            f"ask-{next(engine._request_counter)}",
            lora_request=_lora_request(entry.adapter_id, entry.int_id) if entry else None,
        )
        answer = GreedyCompletion([], [], [])
        async for output in outputs:
            if begun:
                begun.set()
            piece = output.outputs[0]
            answer.tokens.extend(piece.token_ids)
            for choices in piece.logprobs:
                first, second = sorted((c.logprob for c in choices.values()), reverse=True)[:2]
                answer.logprobs.append(first)
                answer.leads.append(first - second)
        return answer

    return ask


async def collect(
    engine: VllmEngine, prompt: list[int], lease: Lease | None = None, **sampling: Any
) -> list[Delta]:
    """All chunks of one completion."""
    stream = engine.generate(prompt, Sampling(**({"max_tokens": 16} | sampling)), lease, "test")
    return [piece async for piece in stream]


@pytest.fixture
def complete() -> Callable[..., Awaitable[list[Delta]]]:
    """All chunks of one completion: `await complete(engine, prompt, lease, **sampling)`."""
    return collect
