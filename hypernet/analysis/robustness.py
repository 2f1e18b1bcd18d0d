"""Robustness: scores of an adapter as its description gets worse.

One checkpoint answers the same samples under descriptions of falling quality. Each kind of
description is a condition beside those of the evaluation. The controls are another task's
description and random letters: if they score as well, no other row means anything (T2L, Charakorn
et al. 2025, compares aligned and unaligned descriptions).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from hypernet.analysis.errors import TooFewTasksError
from hypernet.data.tasks import Task
from hypernet.evaluation.conditions import (
    Condition,
    GeneratedAdapters,
    mismatched_descriptions,
    t2l_conditions,
)
from hypernet.evaluation.eval_task import EvalTask
from hypernet.generator import Generator

TYPO_RATE = 0.15
"""Share of letters that are swapped with the next letter."""


def half(text: str) -> str:
    """The first half of the words, at least one."""
    words = text.split()
    return " ".join(words[: max(1, len(words) // 2)])


def terse(text: str) -> str:
    """The first three words."""
    return " ".join(text.split()[:3])


def shuffled(text: str, rng: random.Random) -> str:
    """The same words in random order."""
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


def with_typos(text: str, rng: random.Random) -> str:
    """Some letters swapped with the next one. Spaces stay in place."""
    letters = list(text)
    for i in range(len(letters) - 1):
        if letters[i].isalpha() and letters[i + 1].isalpha() and rng.random() < TYPO_RATE:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def _other_descriptions(task: Task) -> list[str]:
    """Up to three descriptions that the evaluation does not use."""
    return [text for text in task.descriptions if text not in task.held_out_paraphrases][:3]


Rewrite = Callable[[Task, random.Random], list[str]]
REWRITES: Mapping[str, Rewrite] = {
    "other": lambda task, _: _other_descriptions(task),
    "definition": lambda task, _: [task.definition] if task.definition else [],
    "typos": lambda task, rng: [with_typos(text, rng) for text in task.held_out_paraphrases],
    "half": lambda task, _: [half(text) for text in task.held_out_paraphrases],
    "shuffled": lambda task, rng: [shuffled(text, rng) for text in task.held_out_paraphrases],
    "terse": lambda task, _: [terse(text) for text in task.held_out_paraphrases],
}
"""Condition -> its descriptions of a task; none if the task has no such.

Titles: `report.ROBUSTNESS_TITLES`.
"""


def robustness_conditions(
    generator: Generator, system: str, tasks: Sequence[Task], seed: int
) -> list[Condition]:
    """The checkpoint under its own descriptions, under worse ones, and its controls.

    Args:
        generator: the checkpoint.
        system: its name.
        tasks: at least two, so that each has a mismatched task.
        seed: of shuffling, typos, random letters and mismatched tasks.

    Raises:
        TooFewTasksError: fewer than two tasks.
    """
    if len(tasks) < 2:
        raise TooFewTasksError(
            f"robustness needs at least two tasks, and there are {len(tasks)}: the description of one is the "
            "mismatch of the other"
        )
    by_name = {task.task: task for task in tasks}
    mismatched = mismatched_descriptions(
        {name: task.held_out_paraphrases for name, task in by_name.items()},
        {name for name, task in by_name.items() if task.description_only},
        seed,
    )

    def rewritten(name: str) -> Condition:
        def descriptions(eval_task: EvalTask) -> list[str]:
            rng = random.Random(f"{seed}:{eval_task.task}:{name}")  # every call gives the same descriptions
            return REWRITES[name](by_name[eval_task.task], rng)

        return GeneratedAdapters(name, system, generator, descriptions)

    usual = [c for c in t2l_conditions(generator, system, mismatched, seed) if c.name != "training"]
    return [*usual, *map(rewritten, REWRITES)]
