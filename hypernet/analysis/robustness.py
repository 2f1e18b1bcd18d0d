"""How much worse does an adapter get as its description gets worse?

One checkpoint, the same instances, descriptions of falling quality; the measure is the
likelihood of the right answer, which moves before the answer itself does. The two last
rows are the controls: if another task's description or random letters did as well, no
row above them would mean anything (T2L, Charakorn et al. 2025, asks the same of
aligned and unaligned descriptions).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from hypernet.evaluation.conditions import random_strings, strangers
from hypernet.evaluation.metrics import Interval, bootstrap
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.training.data import Task
from hypernet.training.packing import Example, fit_row, pack
from hypernet.training.sft import example_nll

ROW_TOKENS = 768
TYPO_RATE = 0.15
"""Share of letters that change places with the next one."""
HELD_OUT = "held out"


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


def _training(task: Task) -> list[str]:
    """Descriptions other than the held-out ones; none if there are no others."""
    held_out = set(task.held_out_wordings)
    return [text for text in task.descriptions if text not in held_out][:3]


Corrupt = Callable[[Task, Task, random.Random], list[str]]
CONDITIONS: Mapping[str, Corrupt] = {
    HELD_OUT: lambda task, _, __: task.held_out_wordings,
    "others that it has": lambda task, _, __: _training(task),
    "definition only": lambda task, _, __: [task.definition] if task.definition else [],
    "with typos": lambda task, _, rng: [with_typos(t, rng) for t in task.held_out_wordings],
    "first half": lambda task, _, __: [half(t) for t in task.held_out_wordings],
    "words shuffled": lambda task, _, rng: [shuffled(t, rng) for t in task.held_out_wordings],
    "first three words": lambda task, _, __: [terse(t) for t in task.held_out_wordings],
    "empty": lambda _, __, ___: [""],
    "another task's": lambda _, stranger, __: stranger.held_out_wordings,
    "random letters": lambda task, _, rng: random_strings(task.held_out_wordings, str(rng.random())),
}
"""What each condition makes of a task (and of another one). Nothing: the task has no such description."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One task under one condition."""

    task: str
    condition: str
    nll: float
    """Mean over descriptions and examples of the mean negative log-likelihood per response token, in nats."""
    descriptions: int
    examples: int


def cells(
    base: FrozenBase, generator: Generator, tasks: Sequence[Task], *, examples: int = 12, seed: int = 0
) -> Iterator[Cell]:
    """Every condition of every task, task by task.

    Args:
        base: the base model.
        generator: the hypernetwork with its encoder.
        tasks: at least two, so that each has another.
        examples: instances drawn of each task (files are often sorted), fewer where they do not fit a row of
            `ROW_TOKENS`.
        seed: of what is shuffled, mistyped and random, and of whose description is whose mismatch.

    Raises:
        ValueError: fewer than two tasks.
    """
    if len(tasks) < 2:
        raise ValueError("robustness needs at least two tasks: one's description is the other's mismatch")
    by_name = {task.task: task for task in tasks}
    other = strangers(list(by_name), seed)
    for task in tasks:
        stranger = by_name[other[task.task]]
        drawn = random.Random(f"{seed}:{task.task}").sample(task.instances, len(task.instances))[:examples]
        row = fit_row([base.chat.example(i.input, i.output[0]) for i in drawn], ROW_TOKENS)
        for condition, corrupt in CONDITIONS.items():
            texts = corrupt(task, stranger, random.Random(f"{seed}:{task.task}:{condition}"))
            if texts:
                yield Cell(task.task, condition, _nll(base, generator, row, texts), len(texts), len(row))


@torch.inference_mode()
def _nll(base: FrozenBase, generator: Generator, row: list[Example], texts: list[str]) -> float:
    """Mean over texts and examples; a row of the batch is a text's adapter."""
    packed = pack([row] * len(texts)).to(base.device)
    logits = base.logits(packed, generator.batch(generator.embed(texts)))
    return float(example_nll(logits, packed).mean())


def table(found: Sequence[Cell], seed: int = 0) -> str:
    """Markdown: per condition the NLL, and how far above that of the tasks' held-out descriptions it is."""
    by_condition = {c: {cell.task: cell.nll for cell in found if cell.condition == c} for c in CONDITIONS}
    own = by_condition[HELD_OUT]
    lines = ["| description | tasks | token NLL | above held out |", "|---|---|---|---|"]
    for condition, values in by_condition.items():
        if values:
            above = bootstrap([values[t] - own[t] for t in values], seed)
            shown = "" if condition == HELD_OUT else _show(above)
            lines.append(
                f"| {condition} | {len(values)} | {_show(bootstrap(list(values.values()), seed))} | {shown} |"
            )
    return "\n".join(lines) + "\n"


def _show(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
