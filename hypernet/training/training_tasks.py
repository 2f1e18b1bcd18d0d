"""Tokenised training tasks, with all their descriptions and the weight of each task in the
draws.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from hypernet.data.tasks import Instance, Task
from hypernet.packing import ChatFormat, Example, fit_row
from hypernet.training.config import FineTuning

MIN_EXAMPLES = 5
"""Minimum number of training examples. With fewer, a network memorises the answers."""
PARAPHRASE_TEMPLATES = (
    "{}",
    "Task: {}",
    "{} Answer only.",
    "Your job: {}",
    "You are given an input. {}",
    "{} Nothing else.",
)
"""Forms of a description, for tasks that come with few: the same request in more or fewer words."""


@dataclass(slots=True)
class TrainingTask:
    """A task with tokenised examples and all descriptions to train on."""

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
    """Tokenise a task's training examples, leaving out those above `max_tokens`;
    None if too few are left.
    """
    examples = tokenised(task.split_instances()[0], chat, max_tokens)
    return training_task(task, examples) if len(examples) >= MIN_EXAMPLES else None


def training_task(task: Task, examples: list[Example]) -> TrainingTask:
    """A task with these examples to train on."""
    return TrainingTask(
        task.task, training_paraphrases(task), examples, task.held_out_paraphrases, task.derived, task.group
    )


def prepare_all(tasks: list[Task], chat: ChatFormat, max_tokens: int) -> list[TrainingTask]:
    """`prepare` for many tasks, without those that have too few examples."""
    ready = [prepare(task, chat, max_tokens) for task in tasks]
    return [task for task in ready if task]


def tokenised(instances: list[Instance], chat: ChatFormat, max_tokens: int) -> list[Example]:
    """Instances with their first answer, those above `max_tokens` left out."""
    examples = [chat.example(i.input, i.output[0]) for i in instances]
    return [e for e in examples if len(e.prompt) + len(e.response) <= max_tokens]


def training_paraphrases(task: Task) -> list[str]:
    """All descriptions of a task except its `eval_descriptions`, each in several forms where there
    are few.

    A task without `eval_descriptions` is validated with some of these. Its held-out
    instances never train.
    """
    paraphrases = task.paraphrases
    if task.definition and task.definition not in paraphrases:
        paraphrases = [*paraphrases, task.definition]
    if len(paraphrases) < 20:
        paraphrases = [template.format(w) for w in paraphrases for template in PARAPHRASE_TEMPLATES]
    return paraphrases


def draw_row(task: TrainingTask, rng: random.Random, config: FineTuning) -> list[Example]:
    """Random examples of a task, as many as fit into a row."""
    return fit_row(rng.sample(task.examples, min(config.row_examples, len(task.examples))), config.row_tokens)


def draw_weights(
    tasks: list[TrainingTask], preference: float, derived_share: float, group_balance: float = 0.0
) -> list[float]:
    """Weight of each task in the draws.

    Args:
        tasks: the tasks.
        preference: tasks with short examples are drawn more, with weight (mean length)^-preference.
        derived_share: fraction of the draws that goes to derived tasks.
        group_balance: tasks of a group are drawn less, with weight (size of the
            group)^-group_balance.
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
