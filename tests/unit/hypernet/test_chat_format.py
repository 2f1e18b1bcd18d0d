"""The token that ends an answer, by the base model's own chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hypernet.packing import ChatFormat

TURNS = "{% for m in messages %}<turn>{{ m['role'] }} {{ m['content'] }}END\n{% endfor %}"


@pytest.mark.parametrize(("ending", "expected"), [("<end_of_turn>", "<end_of_turn>"), ("", "<end>")])
def test_answer_ends_with_the_templates_token_or_the_end_of_text(
    tiny_base: Path, ending: str, expected: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    tokenizer.chat_template = TURNS.replace("END", ending)
    chat = ChatFormat(tokenizer)
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids(expected)
    assert chat.response("ab")[-1] == chat.end_of_turn
