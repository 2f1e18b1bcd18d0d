"""Where an answer ends, in the words of the base model's own chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hypernet.packing import ChatFormat

TURNS = "{% for m in messages %}<turn>{{ m['role'] }} {{ m['content'] }}END\n{% endfor %}"


@pytest.mark.parametrize(("written", "ends"), [("<end_of_turn>", "<end_of_turn>"), ("", "<end>")])
def test_an_answer_ends_as_the_template_ends_it_else_as_texts_end(
    tiny_base: Path, written: str, ends: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    tokenizer.chat_template = TURNS.replace("END", written)
    chat = ChatFormat(tokenizer)
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids(ends)
    assert chat.response("ab")[-1] == chat.end_of_turn
