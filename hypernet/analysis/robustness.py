"""How much worse does an adapter get as its description gets worse?

One checkpoint, the same questions, descriptions of falling quality, each a condition
beside those of the evaluation. Of these, another task's description and random letters
are the controls: if they did as well, no row above them would mean anything (T2L,
Charakorn et al. 2025, asks the same of aligned and unaligned descriptions).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from hypernet.data.tasks import Task
from hypernet.evaluation.conditions import Condition, GeneratedAdapters, mismatched_descriptions, t2l_conditions
from hypernet.evaluation.eval_task import EvalTask
from hypernet.generator import Generator

TYPO_RATE = 0.15
"""Share of letters that change places with the next one."""


def half(text: str) -> str:
    """The first half of the words, one at least."""
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
    """Letters swapped with their right neighbour, here and there; same letters, same spaces."""
    letters = list(text)
    for i in range(len(letters) - 1):
        if letters[i].isalpha() and letters[i + 1].isalpha() and rng.random() < TYPO_RATE:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def _others(task: Task) -> list[str]:
    """Descriptions other than those that are evaluated with; none if there are no others."""
    return [text for text in task.descriptions if text not in task.held_out_paraphrases][:3]


Rewrite = Callable[[Task, random.Random], list[str]]
REWRITES: Mapping[str, Rewrite] = {
    "other": lambda task, _: _others(task),
    "definition": lambda task, _: [task.definition] if task.definition else [],
    "typos": lambda task, rng: [with_typos(text, rng) for text in task.held_out_paraphrases],
    "half": lambda task, _: [half(text) for text in task.held_out_paraphrases],
    "shuffled": lambda task, rng: [shuffled(text, rng) for text in task.held_out_paraphrases],
    "terse": lambda task, _: [terse(text) for text in task.held_out_paraphrases],
}
"""What each condition makes of a task's descriptions, if it has such; `report.REWRITTEN` says it in words."""


def robustness_conditions(
    generator: Generator, system: str, tasks: Sequence[Task], seed: int
) -> list[Condition]:
    """The checkpoint under its own descriptions, under those made worse, and its controls.

    Args:
        generator: the checkpoint.
        system: its name.
        tasks: at least two, so that each has another.
        seed: of what is shuffled, mistyped and random, and of whose description is whose mismatch.

    Raises:
        ValueError: fewer than two tasks.
    """
    if len(tasks) < 2:
        raise ValueError("robustness needs at least two tasks: one's description is the other's mismatch")
    by_name = {task.task: task for task in tasks}
    mismatched = mismatched_descriptions(
        {name: task.held_out_paraphrases for name, task in by_name.items()}, seed
    )

    def rewritten(name: str) -> Condition:
        def wordings(eval_task: EvalTask) -> list[str]:
            rng = random.Random(f"{seed}:{eval_task.task}:{name}")  # the same whenever it is asked
            return REWRITES[name](by_name[eval_task.task], rng)

        return GeneratedAdapters(name, system, generator, wordings)

    usual = [c for c in t2l_conditions(generator, system, mismatched, seed) if c.name != "training"]
    return [*usual, *map(rewritten, REWRITES)]
