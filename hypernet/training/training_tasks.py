"""Tasks as training takes them: tokenised, their paraphrases spread out, and how often each is drawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypernet.data.tasks import Instance, Task, TaskFileError
from hypernet.packing import ChatFormat, Example, fit_row
from hypernet.training.config import FineTuning

PARAPHRASE_TEMPLATES = (
    "{}",
    "Task: {}",
    "{} Answer only.",
    "Your job: {}",
    "You are given an input. {}",
    "{} Nothing else.",
)
"""Dress for tasks that come with few paraphrases: the same request, said with more or fewer words."""


@dataclass(slots=True)
class TrainingTask:
    """A task with its examples tokenised and its paraphrases spread out."""

    name: str
    paraphrases: list[str]
    examples: list[Example]
    held_out: list[str]
    derived: bool
    group: str = ""

    @property
    def mean_length(self) -> float:
        """Tokens of an average example."""
        return sum(len(e.prompt) + len(e.response) for e in self.examples) / len(self.examples)


def prepare(task: Task, chat: ChatFormat, max_tokens: int) -> TrainingTask | None:
    """Tokenise a task's training examples, leaving out those above `max_tokens`; None if too few are left."""
    examples = tokenised(task.split_instances()[0], chat, max_tokens)
    if len(examples) < 5:
        return None
    return TrainingTask(
        task.task, training_paraphrases(task), examples, task.held_out_paraphrases, task.derived, task.group
    )


def prepare_all(tasks: list[Task], chat: ChatFormat, max_tokens: int) -> list[TrainingTask]:
    """`prepare` for many tasks, those with too few examples left out."""
    ready = [prepare(task, chat, max_tokens) for task in tasks]
    return [task for task in ready if task]


def check_enough(training: Sequence[object], validation: Sequence[object], config: FineTuning) -> None:
    """Refuse to start a run that would fail at its first step or validation.

    Raises:
        TaskFileError: no task is left to train on, or none to validate with.
    """
    if not training:
        raise TaskFileError(
            f"no task is left to train on: each needs five examples of at most {config.max_example_tokens} "
            "tokens. Raise max_example_tokens, or give more tasks"
        )
    if not validation:
        raise TaskFileError(
            f"no task is left to choose the checkpoint with: validation_share is {config.validation_share}. "
            "Raise it, or give more tasks"
        )


def tokenised(instances: list[Instance], chat: ChatFormat, max_tokens: int) -> list[Example]:
    """Instances with their first answer, those above `max_tokens` left out."""
    examples = [chat.example(i.input, i.output[0]) for i in instances]
    return [e for e in examples if len(e.prompt) + len(e.response) <= max_tokens]


def training_paraphrases(task: Task) -> list[str]:
    """All ways to ask for a task but its `eval_descriptions`, in more than one dress where there are few.

    A task without `eval_descriptions` is validated with some of these: what is held out of it are instances.
    """
    paraphrases = task.paraphrases
    if task.definition and task.definition not in paraphrases:
        paraphrases = [*paraphrases, task.definition]
    if len(paraphrases) < 20:
        paraphrases = [template.format(w) for w in paraphrases for template in PARAPHRASE_TEMPLATES]
    return paraphrases


def draw_row(task: TrainingTask, rng: random.Random, config: FineTuning) -> list[Example]:
    """Some examples of a task, as many as a row of the batch takes."""
    return fit_row(rng.sample(task.examples, min(config.row_examples, len(task.examples))), config.row_tokens)


def draw_weights(
    tasks: list[TrainingTask], preference: float, derived_share: float, group_balance: float = 0.0
) -> list[float]:
    """How often each task is drawn.

    Args:
        tasks: the tasks.
        preference: short ones are drawn more, with weight (mean length)^-preference.
        derived_share: share of the draws that goes to derived tasks in all.
        group_balance: tasks of a group are drawn less, with weight (size of the group)^-group_balance.
    """
    sizes = Counter(t.group for t in tasks)
    weights = [
        t.mean_length**-preference * (sizes[t.group] ** -group_balance if t.group else 1.0) for t in tasks
    ]
    derived = sum(w for w, t in zip(weights, tasks, strict=True) if t.derived)
    other = sum(weights) - derived
    if not derived or not other:
        return weights
    return [
        w * (derived_share / derived if t.derived else (1 - derived_share) / other)
        for w, t in zip(weights, tasks, strict=True)
    ]
