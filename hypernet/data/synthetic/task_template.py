"""Template of a built task: a name, patterns of descriptions, a draw of one instance,
and its rule.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from hypernet.data.overlap import SAME_PAIRS_SHARE, SAME_RULE_SHARE, EvaluationAnswers, Pairs, Rule, lookup
from hypernet.data.tasks import Instance, Task

MAX_PARAPHRASES = 60
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
SLOTS: dict[str, tuple[str, ...]] = {
    "pick": ("pick", "select", "choose", "return", "output", "give", "find", "take", "report", "extract"),
    "write": ("write", "output", "return", "give", "print", "produce", "respond with", "answer with"),
    "item": ("item", "word", "element", "term"),
    "given": ("given", "input", "provided", "listed"),
    "end": (
        "",
        "",
        "",
        " Answer with it alone.",
        " Nothing else.",
        " Output only the answer.",
        " No explanation.",
    ),
}
"""Fillings of a pattern's slots: `{pick}` becomes one of its words."""


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """One built task before its instances are drawn."""

    name: str
    patterns: Sequence[str]
    draw: Callable[[random.Random], tuple[str, str]]
    """One question with its answer."""
    answer: Rule
    """The rule behind the answers. It says whether an evaluation task is the same task."""
    same_share: float = SAME_RULE_SHARE
    """See `EvaluationAnswers.same_task`."""

    @classmethod
    def from_rule(
        cls, name: str, patterns: Sequence[str], question: Callable[[random.Random], str], answer: Rule
    ) -> TaskTemplate:
        """A task whose answers follow from its questions."""

        def draw(rng: random.Random) -> tuple[str, str]:
            text = question(rng)
            found = answer(text)
            assert found is not None, f"{name} draws {text!r}, which its own rule does not answer"
            return text, found

        return cls(name, patterns, draw, answer)

    @classmethod
    def from_pairs(cls, name: str, patterns: Sequence[str], pairs: Pairs) -> TaskTemplate:
        """A task that is a list of (question, answer)."""
        return cls(name, patterns, lambda rng: rng.choice(pairs), lookup(pairs), SAME_PAIRS_SHARE)

    def task(self, instances: int, seed: int, unseen: EvaluationAnswers) -> Task | None:
        """Draw the task, without duplicates and without pairs of evaluation tasks. None if nothing
        is left.

        Each name has a random stream of its own.
        """
        rng = random.Random(f"{seed}:{self.name}")
        drawn = dict(self.draw(rng) for _ in range(instances))
        kept = [
            Instance(input=text, output=[answer])
            for text, answer in drawn.items()
            if not unseen.holds(text, answer)
        ]
        if not kept:
            return None
        return Task(
            task=f"derived_{self.name}",
            name=self.name,
            derived=True,
            descriptions=_paraphrases(self.patterns, rng),
            instances=kept,
        )


def of_list(rule: Callable[[list[str]], str | None], lengths: Collection[int]) -> Rule:
    """A rule about lists of so many words, as a rule about texts like "cup, dog, sun"."""

    def answer(text: str) -> str | None:
        if text.count(", ") + 1 not in lengths:
            return None
        words = text.split(", ")
        return rule(words) if all(words) else None

    return answer


def answer_patterns(noun_phrase: str, given: str, about_input: str) -> tuple[str, ...]:
    """Patterns that ask for an answer by naming it.

    Args:
        noun_phrase: the answer, e.g. "the last letter of the word".
        given: beginning of an instruction, e.g. "Given a word,".
        about_input: a sentence about the input, e.g. "The input is one word."
    """
    return (
        f"{{write}} {noun_phrase}.{{end}}",
        f"{given} {{write}} {noun_phrase}.{{end}}",
        f"{about_input} {{write}} {noun_phrase}.{{end}}",
        f"Your answer should be {noun_phrase}.{{end}}",
        f"{noun_phrase}.{{end}}",
    )


def _paraphrases(patterns: Sequence[str], rng: random.Random) -> list[str]:
    """Up to `MAX_PARAPHRASES` different fillings of the patterns."""
    found: dict[str, None] = {}
    for _ in range(4 * MAX_PARAPHRASES):
        pattern = rng.choice(patterns)
        text = re.sub(r"\{(\w+)\}", lambda slot: rng.choice(SLOTS[slot[1]]), pattern)
        text = re.sub(r"(^|[.?] )([a-z])", lambda start: start[1] + start[2].upper(), text)
        found[text] = None
        if len(found) == MAX_PARAPHRASES:
            break
    return list(found)
