"""Tasks over the same kind of input, between which only a description can decide.

A task file may name the group (`Task.group`). Elsewhere the shape of the inputs stands for it: single
words, lists of four words, pairs of numbers.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from hypernet.packing import Example
from hypernet.training.training_tasks import TrainingTask

LONGEST = 80
"""Inputs of more characters have no shape that would tell anything."""
MOST = 0.7
"""Share of a task's inputs that have the shape which counts as the task's."""
FEWEST_SHARED = 8
"""Tasks that share so many inputs are preferred over those that share the kind alone."""


def input_shape(text: str) -> str:
    """The text with its words and numbers blotted out: "7 cups, 2 forks" -> "9 w, 9 w". Empty for long ones."""
    if len(text) > LONGEST:
        return ""
    blotted = re.sub(r"[^\W\d_]+(?:['-][^\W\d_]+)*", "w", re.sub(r"\d+", "9", text))
    return re.sub(r"w(?: w)+", "w+", blotted)


def group_of(task: TrainingTask) -> str:
    """The group that the task file names, else the shape of most of the inputs; empty if there is none."""
    if task.group:
        return task.group
    shape, count = Counter(input_shape(e.text) for e in task.examples).most_common(1)[0]
    return f"shape {shape}" if shape and count >= MOST * len(task.examples) else ""


class Groups:
    """Which tasks may stand beside which.

    Args:
        tasks: all training tasks.
        weights: how often each is drawn.
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

        Tasks that share inputs with it come first, for identical inputs leave nothing but the description.
        """
        if not self._group[task.name]:
            return []
        others = [t for t in self._members[self._group[task.name]] if t is not task]
        # A weighted draw without replacement (Efraimidis & Spirakis 2006): the largest log(u) / w.
        keys = {t.name: math.log(1 - rng.random()) / self._weights[t.name] for t in others}
        mine = self._inputs[task.name]
        apart = {t.name: len(mine & self._inputs[t.name]) < FEWEST_SHARED for t in others}
        return sorted(others, key=lambda t: (apart[t.name], -keys[t.name]))[:count]


def aligned(task: TrainingTask, leader: Sequence[Example], sampled: Sequence[Example]) -> list[Example]:
    """The sampled examples, the first of them replaced by the task's answers to the leader's inputs."""
    asked = dict.fromkeys(e.text for e in leader)
    own = {e.text: e for e in task.examples if e.text in asked}
    common = [own[text] for text in asked if text in own]
    return [*common, *(e for e in sampled if e.text not in own)][: len(sampled)]
