"""Which conditions an evaluation runs, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from hypernet.errors import T2lError
from hypernet.evaluation.conditions import Condition
from hypernet.evaluation.eval_task import EvalTask
from hypernet.evaluation.report import ROBUSTNESS_TITLES, ROW_TITLES

CONDITIONS = tuple(name for name in ROW_TITLES if name not in ROBUSTNESS_TITLES)
"""Conditions of `t2l eval`."""
REQUIRED_OPTION = {
    "multitask": "--multitask",
    "multitask_prompted": "--multitask",
    "multitask_icl": "--multitask",
    "average": "--library",
    "arrow": "--library",
    "oracle": "--oracles",
    "hyperdecoder": "--hyperdecoder",
}
"""Condition -> the option that gives its adapters."""


class ConditionError(T2lError):
    """A condition that does not exist or cannot run."""


def parse_conditions(text: str | None) -> list[str]:
    """Names in a comma-separated list; None: all.

    Raises:
        ConditionError: a name is unknown; the message suggests one.
    """
    names = [part.strip() for part in (text or "").split(",") if part.strip()] or list(CONDITIONS)
    for name in names:
        if name in ROBUSTNESS_TITLES:
            raise ConditionError(f"--conditions: {name} is a condition of `t2l analyse robustness`")
        if name not in CONDITIONS:
            near = get_close_matches(name, CONDITIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(CONDITIONS)}"
            raise ConditionError(f"--conditions: {name} is unknown, {hint}")
    return names


def select_conditions(available: Sequence[Condition], names: Sequence[str]) -> list[Condition]:
    """The available conditions of these names, in the order of `CONDITIONS`."""
    chosen = [condition for condition in available if condition.name in names]
    return sorted(chosen, key=lambda condition: CONDITIONS.index(condition.name))


def missing_conditions(available: Sequence[Condition], names: Sequence[str]) -> list[str]:
    """A line per condition that is not available, with the option that it needs."""
    present = {condition.name for condition in available}
    return [f"left out: {name}, it needs {REQUIRED_OPTION[name]}" for name in names if name not in present]


def skipped_tasks(conditions: Sequence[Condition], eval_tasks: Sequence[EvalTask]) -> list[str]:
    """A line per condition and reason that skips tasks."""
    lines = []
    for condition in conditions:
        reasons = Counter(filter(None, map(condition.skip_reason, eval_tasks)))
        lines += [
            f"left out: {condition.name} on {count} of {len(eval_tasks)} tasks: {reason}"
            for reason, count in reasons.items()
        ]
    return lines


def count_results(conditions: Sequence[Condition], eval_tasks: Sequence[EvalTask]) -> int:
    """Number of results that the conditions give.

    Raises:
        ConditionError: there are none; the message names the reasons.
    """
    total = sum(not condition.skip_reason(task) for condition in conditions for task in eval_tasks)
    if not total:
        reasons = "; ".join(skipped_tasks(conditions, eval_tasks)) or "see the lines above"
        raise ConditionError(f"no condition can run: {reasons}")
    return total
