"""Nuance: one prompt, answered under several descriptions that may differ in a single word.

T2L (Charakorn et al. 2025) shows such pairs to argue that the description steers the answer. This
module makes them for any checkpoint, and shows where the description does not steer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypernet.evaluation.decoding import greedy
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer. The description is None for the base model alone."""

    description: str | None
    text: str


def answers(
    base: FrozenBase, generator: Generator, prompt: str, descriptions: Sequence[str], max_tokens: int = 48
) -> list[Answer]:
    """Greedy answers to one prompt: of the base model,
    then under the adapter of each description.
    """
    tokens = [base.chat.prompt(prompt)]
    adapters = generator.forward(generator.embed(list(descriptions)))
    found = [Answer(None, base.chat.text(greedy(base, tokens, None, max_tokens)[0]).strip())]
    for i, description in enumerate(descriptions):
        answer = greedy(base, tokens, adapters.take([i]), max_tokens)[0]
        found.append(Answer(description, base.chat.text(answer).strip()))
    return found


def table(prompt: str, found: Sequence[Answer]) -> str:
    """The prompt, and a Markdown row per answer."""
    lines = [f"Prompt: {_cell(prompt)}", "", "| description | answer |", "|---|---|"]
    lines += [f"| {_cell(a.description or '*none: the base model*')} | {_cell(a.text)} |" for a in found]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text on one line, escaped for a Markdown table."""
    return "<br>".join(text.replace("|", "\\|").splitlines())
