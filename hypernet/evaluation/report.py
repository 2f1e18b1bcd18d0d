"""Cells to Markdown: means with bootstrap intervals, and how much the own description is better, paired."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO

from hypernet.evaluation.eval_task import DESCRIPTION_ONLY
from hypernet.evaluation.metrics import METRICS, bootstrap
from hypernet.evaluation.results import EvalResult

REWRITTEN = {
    "other": "T2L, its other wordings",
    "definition": "T2L, its definition alone",
    "typos": "T2L, own description with typos",
    "half": "T2L, first half of the own description",
    "shuffled": "T2L, own description with its words shuffled",
    "terse": "T2L, first three words of the own description",
}
"""Conditions of `analysis/robustness.py`."""
NAMES = {
    "copy": "the question itself as the answer",
    "base": "base model",
    "prompted": "base + description in the prompt",
    "icl": "base + three examples in the prompt",
    "multitask": "one multi-task LoRA",
    "multitask_prompted": "one multi-task LoRA + description in the prompt",
    "multitask_icl": "one multi-task LoRA + three examples in the prompt",
    "average": "average of the task LoRAs",
    "arrow": "Arrow routing over the task LoRAs",
    "hyperdecoder": "Hyperdecoder (the input as description)",
    "matched": "T2L, own description (evaluation wording)",
    "matched_prompted": "T2L, own description, in the prompt too",
    "matched_icl": "T2L, own description + three examples in the prompt",
    "training": "T2L, own description (wordings that are not held out)",
    **REWRITTEN,
    "mismatched": "T2L, another task's description",
    "random": "T2L, random letters",
    "empty": "T2L, empty description",
    "oracle": "a LoRA trained on the task itself (oracle)",
}
"""Conditions in the order of the table."""
OWN, TAUGHT, ORACLE = "matched", "training", "oracle"
WRITTEN = (OWN, "matched_prompted", "matched_icl", TAUGHT, *REWRITTEN, "mismatched", "random", "empty")
"""Conditions of a checkpoint; they are compared within it."""
LIKELIHOOD = "token NLL"
DESCRIPTION_ONLY_TITLE = "exact match % where only the description tells"

NOTES = {
    True: (
        "Tasks",
        "; NLL in nats per target token, lower is better; score is exact match or ROUGE-L, by task",
    ),
    False: ("Benchmarks", ""),
}
"""Heading and note of a table, by whether it is of tasks."""

Row = dict[str, EvalResult]
"""One row of a table: task -> result."""
Rows = dict[tuple[str, str], Row]
"""(condition, system) -> row."""


@dataclass(frozen=True)
class Column:
    """One number of a table.

    Attributes:
        title: its heading.
        read: a result's values by name; their mean is shown, and they are what is resampled.
        digits: shown after the point.
        counted: what the values are values of.
    """

    title: str
    read: Callable[[EvalResult], dict[str, float]]
    digits: int = 1
    counted: str = "tasks"

    def values(self, row: Row) -> dict[str, float]:
        """All values of a row."""
        return {name: value for result in row.values() for name, value in self.read(result).items()}


def report(results: Sequence[EvalResult], seed: int = 0) -> str:
    """The tables of a folder: one of the tasks, one of the benchmarks."""
    sections = []
    for group in groups(results):
        title, note = NOTES[group[0].metric in METRICS]
        about = f"{group[0].base}, seed {group[0].seed}, {_range([c.n for c in group])} questions a task"
        sections.append(f"## {title}\n\n{about}; mean [95% bootstrap interval]{note}.\n\n{tables(group, seed)}")
    return "\n".join(sections)


def scores(results: Sequence[EvalResult]) -> str:
    """A CSV with the mean score of each result, for other tools and later paired comparisons."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "condition", "system", "metric", "n", "seed", "score", "nll"])
    for c in sorted(results, key=lambda c: (c.task, c.condition, c.system)):
        nll = "" if c.nll is None else f"{c.nll:.5f}"
        writer.writerow([c.task, c.condition, c.system, c.metric, c.n, c.seed, f"{c.score:.5f}", nll])
    return text.getvalue()


def groups(results: Sequence[EvalResult]) -> list[list[EvalResult]]:
    """Cells that belong in one table."""
    found: dict[bool, list[EvalResult]] = {}
    for result in results:
        found.setdefault(result.metric not in METRICS, []).append(result)
    return [found[key] for key in sorted(found)]


def group_name(group: Sequence[EvalResult]) -> str:
    """A short name of a group, for files."""
    return "tasks" if group[0].metric in METRICS else "benchmarks"


def tables(results: Sequence[EvalResult], seed: int = 0) -> str:
    """The main table, then for each checkpoint the paired differences of its own description from the rest."""
    rows = group_rows(results)
    columns = [c for c in table_columns(results) if any(map(c.values, rows.values()))]
    usual = [max(len(c.values(row)) for row in rows.values()) for c in columns]
    several = len({system for condition, system in rows if condition in WRITTEN}) > 1
    lines = _head("condition", [f"{c.title} ({n} {c.counted})" for c, n in zip(columns, usual, strict=True)])
    for (condition, system), row in rows.items():
        shown = [_show(c.values(row), c, n, seed) for c, n in zip(columns, usual, strict=True)]
        name = row_name(condition, system, several)
        lines.append(_line([f"**{name}**" if condition == OWN else name, *shown]))
    for system in [system for condition, system in rows if condition == OWN]:
        whose = f" of {system}" if several else ""
        lines += ["", f"Own description{whose} minus ..., paired:", ""]
        lines += _head("... minus", [c.title.replace(" %", ", points") for c in columns])
        for other in others(rows, system):
            differences = [paired(rows[OWN, system], rows[other], c) for c in columns]
            shown = [_show(d, c, n, seed) for d, c, n in zip(differences, columns, usual, strict=True)]
            lines.append(_line([row_name(*other, several=other[0] == OWN), *shown]))
        for other in (key for key in rows if key[0] == ORACLE):
            shares = [_share(rows[OWN, system], rows[other], c, seed) for c in columns]
            lines.append(_line([f"share of what {row_name(*other)} reaches, %", *shares]))
    return "\n".join(lines) + "\n"


def group_rows(results: Iterable[EvalResult]) -> Rows:
    """Cells by (condition, system), in the order of `NAMES`, then by task.

    Without the training wordings where of every task they are the evaluation wordings, too.
    """
    rows: Rows = {}
    order = list(NAMES)
    for result in sorted(results, key=lambda c: (order.index(c.condition), c.system, c.task)):
        rows.setdefault((result.condition, result.system), {})[result.task] = result
    return {
        key: row for key, row in rows.items() if key[0] != TAUGHT or not _same(row, rows.get((OWN, key[1])))
    }


def _same(row: Row, other: Row | None) -> bool:
    """Whether two rows' results were made from the same wordings: then all that they hold is the same."""
    return row == {task: c.model_copy(update={"condition": TAUGHT}) for task, c in (other or {}).items()}


def others(rows: Rows, system: str) -> list[tuple[str, str]]:
    """What a checkpoint's own description is compared with: every baseline, its own controls, and what
    other checkpoints make of the own description."""
    rest = [key for key in rows if key != (OWN, system)]
    return [(c, its) for c, its in rest if c not in WRITTEN or its == system or c == OWN]


def paired(mine: Row, theirs: Row, column: Column) -> dict[str, float]:
    """Mine minus theirs, where both have the value."""
    left, right = column.values(mine), column.values(theirs)
    return {name: left[name] - right[name] for name in left if name in right}


def _share(mine: Row, oracles: Row, column: Column, seed: int) -> str:
    """Sum of mine over the sum of the oracles', of tasks where an oracle scores at all. Not of likelihoods."""
    own, theirs = column.values(mine), column.values(oracles)
    both = [name for name in own if theirs.get(name, 0) > 0]
    if not both or column.title == LIKELIHOOD:
        return ""
    weights = [theirs[name] for name in both]
    found = bootstrap([100 * own[name] / theirs[name] for name in both], seed, weights=weights)
    return f"{found.mean:.0f} [{found.low:.0f}, {found.high:.0f}]"


def table_columns(results: Sequence[EvalResult]) -> list[Column]:
    """For tasks likelihood, each task's own metric, and that by kinds of task; for benchmarks one column
    each, over its questions, and the mean over benchmarks."""
    if results[0].metric in METRICS:
        return [
            Column(LIKELIHOOD, lambda c: {} if c.nll is None else {c.task: c.nll}, 2),
            Column("score %", _score),
            Column("exact match %", lambda c: _score(c) if c.metric == "exact_match" else {}),
            Column("ROUGE-L %", lambda c: _score(c) if c.metric == "rougeL" else {}),
            Column(DESCRIPTION_ONLY_TITLE, lambda c: _score(c) if c.task.startswith(DESCRIPTION_ONLY) else {}),
        ]
    names = sorted({c.task for c in results})
    return [
        *(Column(f"{name} %", partial(_questions, name), counted="questions") for name in names),
        Column("mean %", _score, counted="benchmarks"),
    ]


def _score(result: EvalResult) -> dict[str, float]:
    return {result.task: 100 * result.score}


def _questions(task: str, result: EvalResult) -> dict[str, float]:
    """Each question's score, averaged over wordings."""
    if result.task != task:
        return {}
    return {f"{task} {i}": 100 * sum(s) / len(s) for i, s in enumerate(zip(*result.scores, strict=True))}


def _show(values: dict[str, float], column: Column, usual: int, seed: int) -> str:
    """Mean and interval, and of how many values where it is not the column's number."""
    if not values:
        return ""
    interval = bootstrap(list(values.values()), seed)
    low, mean, high = (
        f"{round(x, column.digits) + 0.0:.{column.digits}f}"
        for x in (interval.low, interval.mean, interval.high)
    )
    return f"{mean} [{low}, {high}]" + ("" if interval.n == usual else f" ({interval.n} {column.counted})")


def row_name(condition: str, system: str = "", several: bool = False) -> str:
    """A row's name in plain text; which checkpoint it is only where there are several."""
    told = system and (several or condition not in WRITTEN)
    return f"{NAMES[condition]} ({system})" if told else NAMES[condition]


def _range(numbers: list[int]) -> str:
    return f"{min(numbers)}-{max(numbers)}" if min(numbers) < max(numbers) else str(min(numbers))


def _head(first: str, titles: list[str]) -> list[str]:
    return [_line([first, *titles]), "|" + "---|" * (len(titles) + 1)]


def _line(fields: list[str]) -> str:
    return f"| {' | '.join(fields)} |"
