"""Completions: streaming, finish reasons, sampling, prompts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.engine.vllm import VllmEngine
from server.errors import InvalidRequestError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

HELLO = [{"role": "user", "content": "Count from one to ten in words."}]


def text(pieces: Any) -> str:
    return "".join(piece.text for piece in pieces)


async def test_completion_streams_in_chunks_with_one_finish_reason(engine: VllmEngine, complete: Any) -> None:
    pieces = await complete(engine, engine.tokenize(HELLO, None), max_tokens=12)
    assert len(pieces) > 3
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    counts = [piece.completion_tokens for piece in pieces]
    assert counts == sorted(counts)
    assert (pieces[-1].finish_reason, counts[-1]) == ("length", 12)


async def test_stop_string_ends_the_completion_and_is_not_part_of_it(engine: VllmEngine, complete: Any) -> None:
    prompt = engine.tokenize(None, "one two three four five one two three four five one two")
    whole = text(await complete(engine, prompt, max_tokens=12))
    assert "four" in whole
    pieces = await complete(engine, prompt, max_tokens=12, stop=("four",))
    assert text(pieces) == whole[: whole.index("four")]
    assert pieces[-1].finish_reason == "stop"


async def test_end_of_sequence_token_finishes_with_stop(engine: VllmEngine, complete: Any) -> None:
    prompt = engine.tokenize([{"role": "user", "content": "Say only the word yes."}], None)
    pieces = await complete(engine, prompt, max_tokens=400)
    assert pieces[-1].finish_reason == "stop"
    assert "<|im_end|>" not in text(pieces)


async def test_seed_makes_sampling_reproducible(engine: VllmEngine, complete: Any) -> None:
    prompt = engine.tokenize(HELLO, None)
    first, again, other = [
        text(await complete(engine, prompt, temperature=1.2, seed=seed, max_tokens=24)) for seed in (1, 1, 2)
    ]
    assert first == again != other


async def test_chunked_prefill_of_seeded_requests_keeps_the_engine_alive(
    engine: VllmEngine, complete: Any
) -> None:
    """More prompt tokens than fit into a step. Without the patch, the engine dies on a CPU."""
    prompts = [engine.tokenize(None, f"{i}: " + "word " * 900) for i in range(8)]
    answers = await asyncio.gather(
        *(complete(engine, p, temperature=1.0, seed=i, max_tokens=3) for i, p in enumerate(prompts))
    )
    assert [pieces[-1].completion_tokens for pieces in answers] == [3] * 8
    assert engine.dead is None


async def test_tiny_top_p_is_greedy(engine: VllmEngine, complete: Any) -> None:
    prompt = engine.tokenize(HELLO, None)
    greedy = text(await complete(engine, prompt))
    assert text(await complete(engine, prompt, temperature=1.0, top_p=1e-6)) == greedy


async def test_messages_are_rendered_by_the_chat_template(engine: VllmEngine) -> None:
    tokenizer = engine._llm.get_tokenizer()
    chat = tokenizer.decode(engine.tokenize(HELLO, None))
    assert chat.endswith("<|im_start|>assistant\n")
    assert HELLO[0]["content"] in chat
    assert tokenizer.decode(engine.tokenize(None, "plain text")) == "plain text"


async def test_prompt_beyond_the_context_is_an_invalid_request(engine: VllmEngine, complete: Any) -> None:
    with pytest.raises(InvalidRequestError) as error:
        await complete(engine, [100] * 1025)
    assert error.value.param == "prompt"
    assert engine.dead is None
