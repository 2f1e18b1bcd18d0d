"""One prompt, several descriptions: the same question answered under adapters that differ in a word.

T2L (Charakorn et al. 2025) shows such pairs by hand to argue that the description steers
the answer. Here anybody can try, on any checkpoint, and see where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypernet.evaluation.decoding import greedy
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer; no description is the base model alone."""

    description: str | None
    text: str


def answers(
    base: FrozenBase, generator: Generator, prompt: str, descriptions: Sequence[str], max_tokens: int = 48
) -> list[Answer]:
    """Greedy answers to one prompt: of the base model, then under each description's adapter."""
    tokens = [base.chat.prompt(prompt)]
    adapters = generator.forward(generator.embed(list(descriptions)))
    found = [Answer(None, base.chat.text(greedy(base, tokens, None, max_tokens)[0]).strip())]
    for i, description in enumerate(descriptions):
        said = greedy(base, tokens, adapters.take([i]), max_tokens)[0]
        found.append(Answer(description, base.chat.text(said).strip()))
    return found


def table(prompt: str, found: Sequence[Answer]) -> str:
    """The prompt, and a Markdown row per answer."""
    lines = [f"Prompt: {_result(prompt)}", "", "| description | answer |", "|---|---|"]
    lines += [f"| {_result(a.description or '*none: the base model*')} | {_result(a.text)} |" for a in found]
    return "\n".join(lines) + "\n"


def _result(text: str) -> str:
    """Text that stays within one result of a Markdown table."""
    return "<br>".join(text.replace("|", "\\|").splitlines())
