"""How a derived task is made: a name, ways of asking for it, and a draw of one question with its answer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
"""What paraphrases vary in; `{pick}` in a pattern becomes one of these."""


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """One derived task before its instances are drawn."""

    name: str
    patterns: Sequence[str]
    draw: Callable[[random.Random], tuple[str, str]]

    def task(self, instances: int, seed: int) -> Task:
        """Draw the task; duplicates are dropped. Each name has a random stream of its own."""
        rng = random.Random(f"{seed}:{self.name}")
        drawn = dict(self.draw(rng) for _ in range(instances))
        return Task(
            task=f"derived_{self.name}",
            name=self.name,
            derived=True,
            descriptions=_paraphrases(self.patterns, rng),
            instances=[Instance(input=text, output=[answer]) for text, answer in drawn.items()],
        )


def answer_patterns(said: str, given: str, told: str) -> tuple[str, ...]:
    """Patterns that ask for an answer by naming it.

    Args:
        said: the answer, e.g. "the last letter of the word".
        given: how an order begins, e.g. "Given a word,".
        told: a sentence about the input, e.g. "The input is one word."
    """
    return (
        f"{{write}} {said}.{{end}}",
        f"{given} {{write}} {said}.{{end}}",
        f"{told} {{write}} {said}.{{end}}",
        f"Your answer should be {said}.{{end}}",
        f"{said}.{{end}}",
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
