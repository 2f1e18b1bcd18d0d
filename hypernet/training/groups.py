"""Groups of tasks over the same kind of input. Only the descriptions tell such tasks apart.

A task file may name the group (`Task.group`). Otherwise the shape of the inputs is the group:
single words, lists of four words, pairs of numbers.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from hypernet.packing import Example
from hypernet.training.training_tasks import TrainingTask

MAX_SHAPED = 80
"""Inputs of more characters have no shape."""
MIN_SHAPE_SHARE = 0.7
"""Fraction of a task's inputs that must have the same shape."""
MIN_COMMON_INPUTS = 8
"""Tasks with as many inputs in common are preferred over tasks with the same kind of input only."""


def input_shape(text: str) -> str:
    """The text with a sign for each word and number: "7 cups, 2 forks" -> "9 w, 9 w".

    Empty for long texts.
    """
    if len(text) > MAX_SHAPED:
        return ""
    masked = re.sub(r"[^\W\d_]+(?:['-][^\W\d_]+)*", "w", re.sub(r"\d+", "9", text))
    return re.sub(r"w(?: w)+", "w+", masked)


def group_of(task: TrainingTask) -> str:
    """The group that the task file names, else the shape of most of the inputs;
    empty if there is none.
    """
    if task.group:
        return task.group
    shape, count = Counter(input_shape(e.text) for e in task.examples).most_common(1)[0]
    return f"shape {shape}" if shape and count >= MIN_SHAPE_SHARE * len(task.examples) else ""


class Groups:
    """The tasks that may share a batch because they are of one group.

    Args:
        tasks: all training tasks.
        weights: weight of each in the draws.
    """

    def __init__(self, tasks: Sequence[TrainingTask], weights: Sequence[float]) -> None:
        self._weights = {t.name: w for t, w in zip(tasks, weights, strict=True)}
        self._inputs = {t.name: {e.text for e in t.examples} for t in tasks}
        self._group = {t.name: group_of(t) for t in tasks}
        self._members: dict[str, list[TrainingTask]] = defaultdict(list)
        for task in tasks:
            self._members[self._group[task.name]].append(task)

    def siblings(self, task: TrainingTask, count: int, rng: random.Random) -> list[TrainingTask]:
        """Up to `count` other tasks of the task's group, each once.

        Tasks with inputs in common come first: with identical inputs, only the description differs.
        """
        if not self._group[task.name]:
            return []
        others = [t for t in self._members[self._group[task.name]] if t is not task]
        # A weighted draw without replacement (Efraimidis & Spirakis 2006): the largest log(u) / w.
        keys = {t.name: math.log(1 - rng.random()) / self._weights[t.name] for t in others}
        mine = self._inputs[task.name]
        apart = {t.name: len(mine & self._inputs[t.name]) < MIN_COMMON_INPUTS for t in others}
        return sorted(others, key=lambda t: (apart[t.name], -keys[t.name]))[:count]


def aligned(task: TrainingTask, leader: Sequence[Example], sampled: Sequence[Example]) -> list[Example]:
    """The sampled examples, the first of them replaced by the task's answers to the leader's
    inputs.
    """
    asked = dict.fromkeys(e.text for e in leader)
    own = {e.text: e for e in task.examples if e.text in asked}
    common = [own[text] for text in asked if text in own]
    return [*common, *(e for e in sampled if e.text not in own)][: len(sampled)]
