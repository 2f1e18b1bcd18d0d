"""Keeps built training tasks apart from evaluation tasks:
by their answers instead of their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from hypernet.data.tasks import Task

Rule = Callable[[str], str | None]
"""A question -> its answer, or None where it is no question of the task."""

Pairs = Sequence[tuple[str, str]]
"""(question, answer)."""

SAME_RULE_SHARE = 0.5
"""A rule that gives more right answers than this to an evaluation task is that task. Of three
words, two different rules often pick the same one by chance."""
SAME_PAIRS_SHARE = 0.25
"""The same for a list of pairs.

Two sources often give a word different synonyms or translations.
"""
MIN_SAME_ANSWERS = 3
"""Fewer equal answers are chance. Such pairs are not shown, but do not make two tasks the same."""


class EvaluationAnswers:
    """The questions of evaluation tasks, with their answers.

    Answers are compared as exact match does: without case and punctuation.

    Args:
        tasks: the evaluation tasks, with all their instances.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        given = list(tasks)
        self.names = frozenset(name for task in given for name in (task.task, task.name) if name)
        self._answers: dict[str, dict[str, set[str]]] = {}  # task -> question as written -> plain answers
        self._pairs: set[tuple[str, str]] = set()  # plain (question, answer)
        for task in given:
            for instance in task.instances:
                answers = {plain(text) for text in instance.output}
                self._answers.setdefault(task.task, {}).setdefault(instance.input, set()).update(answers)
                self._pairs |= {(plain(instance.input), answer) for answer in answers}

    def same_task(self, rule: Rule, share: float = SAME_RULE_SHARE) -> str | None:
        """The first evaluation task that a rule answers, or None.

        That is so if at least MIN_SAME_ANSWERS answers, and more than `share` of those that the
        rule gives to the task's questions, are right.
        """
        for name, questions in self._answers.items():
            given = [(answer, right) for text, right in questions.items() if (answer := rule(text)) is not None]
            same = sum(plain(answer) in right for answer, right in given)
            if same >= MIN_SAME_ANSWERS and same > share * len(given):
                return name
        return None

    def holds(self, question: str, answer: str) -> bool:
        """Whether an evaluation task gives this answer to this question."""
        return (plain(question), plain(answer)) in self._pairs


def lookup(pairs: Pairs) -> Rule:
    """The rule of a task that is a list of (question, answer): it knows these questions only."""
    known: Mapping[str, str] = {plain(question): answer for question, answer in pairs}
    return lambda text: known.get(plain(text))


@lru_cache(maxsize=1 << 15)  # many rules are asked the same questions
def plain(text: str) -> str:
    """A text as exact match sees it: without case and punctuation. Signs alone stay as they are."""
    return re.sub(r"\W", "", text.lower()) or text.strip()
