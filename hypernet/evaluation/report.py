"""Results as Markdown tables: means with bootstrap intervals, and paired differences."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO

from hypernet.evaluation.metrics import METRICS, bootstrap
from hypernet.evaluation.results import EvalResult

ROBUSTNESS_TITLES = {
    "other": "T2L, its other paraphrases",
    "definition": "T2L, its definition alone",
    "typos": "T2L, own description with typos",
    "half": "T2L, first half of the own description",
    "shuffled": "T2L, own description with its words shuffled",
    "terse": "T2L, first three words of the own description",
}
"""Condition of `analysis/robustness.py` -> title of its row."""
ROW_TITLES = {
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
    "training": "T2L, own description (paraphrases that are not held out)",
    **ROBUSTNESS_TITLES,
    "mismatched": "T2L, another task's description",
    "random": "T2L, random letters",
    "empty": "T2L, empty description",
    "oracle": "a LoRA trained on the task itself (oracle)",
}
"""Condition -> title of its row, in the order of the rows."""
MATCHED, TRAINING, ORACLE = "matched", "training", "oracle"
CHECKPOINT_CONDITIONS = (
    *(MATCHED, "matched_prompted", "matched_icl", TRAINING),
    *ROBUSTNESS_TITLES,
    *("mismatched", "random", "empty"),
)
"""Conditions of a checkpoint under test. They are compared within the checkpoint."""
LIKELIHOOD = "token NLL"
DESCRIPTION_ONLY_TITLE = "exact match % where only the description tells"

NOTES = {
    True: (
        "Tasks",
        "; NLL in nats per target token, lower is better; score is exact match or ROUGE-L, by task",
    ),
    False: ("Benchmarks", ""),
}
"""Whether a table is of tasks -> its heading and note."""

Row = dict[str, EvalResult]
"""One row of a table: task -> result."""
Rows = dict[tuple[str, str], Row]
"""(condition, system) -> row."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: its heading.
        extract: result -> values by name. The table shows their mean and resamples them.
        digits: after the decimal point.
        unit: what the values are counted in.
    """

    title: str
    extract: Callable[[EvalResult], dict[str, float]]
    digits: int = 1
    unit: str = "tasks"

    def values(self, row: Row) -> dict[str, float]:
        """All values of a row by name."""
        return {name: value for result in row.values() for name, value in self.extract(result).items()}


def report(results: Sequence[EvalResult], seed: int = 0) -> str:
    """The tables of a folder: one of the tasks, one of the benchmarks."""
    sections = []
    for group in table_groups(results):
        title, note = NOTES[group[0].metric in METRICS]
        questions = f"{_range([result.n for result in group])} questions a task"
        about = f"{group[0].base}, seed {group[0].seed}, {questions}; mean [95% bootstrap interval]{note}."
        sections.append(f"## {title}\n\n{about}\n\n{tables(group, seed)}")
    return "\n".join(sections)


def scores(results: Sequence[EvalResult]) -> str:
    """A CSV with the mean score of each result, for other tools and later paired comparisons."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "condition", "system", "metric", "n", "seed", "score", "nll"])
    for r in sorted(results, key=lambda r: (r.task, r.condition, r.system)):
        nll = "" if r.nll is None else f"{r.nll:.5f}"
        writer.writerow([r.task, r.condition, r.system, r.metric, r.n, r.seed, f"{r.score:.5f}", nll])
    return text.getvalue()


def table_groups(results: Sequence[EvalResult]) -> list[list[EvalResult]]:
    """The results of each table: tasks first, then benchmarks."""
    groups: dict[bool, list[EvalResult]] = {}
    for result in results:
        groups.setdefault(result.metric not in METRICS, []).append(result)
    return [groups[key] for key in sorted(groups)]


def group_name(group: Sequence[EvalResult]) -> str:
    """Name of a table in file names."""
    return "tasks" if group[0].metric in METRICS else "benchmarks"


def tables(results: Sequence[EvalResult], seed: int = 0) -> str:
    """The main table, then per checkpoint the paired differences of its own description from other
    rows.
    """
    rows = group_rows(results)
    columns = [c for c in table_columns(results) if any(map(c.values, rows.values()))]
    counts = [max(len(c.values(row)) for row in rows.values()) for c in columns]
    several = len({system for condition, system in rows if condition in CHECKPOINT_CONDITIONS}) > 1
    lines = _head("condition", [f"{c.title} ({n} {c.unit})" for c, n in zip(columns, counts, strict=True)])
    for (condition, system), row in rows.items():
        cells = [_show(c.values(row), c, n, seed) for c, n in zip(columns, counts, strict=True)]
        name = row_name(condition, system, several)
        lines.append(_line([f"**{name}**" if condition == MATCHED else name, *cells]))
    lines += _omitted_rows(results, rows, several)
    for system in [system for condition, system in rows if condition == MATCHED]:
        whose = f" of {system}" if several else ""
        lines += ["", f"Own description{whose} minus ..., paired:", ""]
        lines += _head("... minus", [c.title.replace(" %", ", points") for c in columns])
        for other in comparison_rows(rows, system):
            differences = [paired_differences(rows[MATCHED, system], rows[other], c) for c in columns]
            cells = [_show(d, c, n, seed) for d, c, n in zip(differences, columns, counts, strict=True)]
            lines.append(_line([row_name(*other, several=other[0] == MATCHED), *cells]))
        for other in (key for key in rows if key[0] == ORACLE):
            shares = [_oracle_share(rows[MATCHED, system], rows[other], c, seed) for c in columns]
            lines.append(_line([f"share of what {row_name(*other)} reaches, %", *shares]))
    return "\n".join(lines) + "\n"


def group_rows(results: Iterable[EvalResult]) -> Rows:
    """Results by (condition, system) in the order of `ROW_TITLES`, then by task.

    The row `training` is omitted where every task has the same descriptions there as under
    `matched`.
    """
    rows = _all_rows(results)
    return {key: row for key, row in rows.items() if not _repeats_matched(key, rows)}


def _all_rows(results: Iterable[EvalResult]) -> Rows:
    order = {condition: place for place, condition in enumerate(ROW_TITLES)}
    rows: Rows = {}
    # A condition without a title, e.g. of a later version, comes last under its own name.
    for result in sorted(
        results, key=lambda r: (order.get(r.condition, len(order)), r.condition, r.system, r.task)
    ):
        rows.setdefault((result.condition, result.system), {})[result.task] = result
    return rows


def _repeats_matched(key: tuple[str, str], rows: Rows) -> bool:
    """Whether a row is `training` with the results of `matched`:
    equal descriptions give equal results.
    """
    condition, system = key
    matched = rows.get((MATCHED, system), {})
    same = {task: result.model_copy(update={"condition": TRAINING}) for task, result in matched.items()}
    return condition == TRAINING and rows[key] == same


def _omitted_rows(results: Iterable[EvalResult], rows: Rows, several: bool) -> list[str]:
    """A line per row that the table omits."""
    omitted = [row_name(*key, several) for key in _all_rows(results) if key not in rows]
    reason = "every task has the same descriptions there as under the own description (evaluation wording)"
    return ["", *(f"No row for `{name}`: {reason}." for name in omitted)] if omitted else []


def comparison_rows(rows: Rows, system: str) -> list[tuple[str, str]]:
    """The rows that a checkpoint's own description is compared with.

    These are all baselines, the checkpoint's other conditions, and other checkpoints' own
    descriptions.
    """
    rest = [key for key in rows if key != (MATCHED, system)]
    return [
        (condition, other)
        for condition, other in rest
        if condition not in CHECKPOINT_CONDITIONS or other == system or condition == MATCHED
    ]


def paired_differences(row: Row, other: Row, column: Column) -> dict[str, float]:
    """Values of a row minus those of another, where both have one."""
    left, right = column.values(row), column.values(other)
    return {name: left[name] - right[name] for name in left if name in right}


def _oracle_share(row: Row, oracle: Row, column: Column, seed: int) -> str:
    """Sum of a row over the sum of the oracle's, in %, of tasks where the oracle scores.

    Empty for NLL.
    """
    values, reached = column.values(row), column.values(oracle)
    both = [name for name in values if reached.get(name, 0) > 0]
    if not both or column.title == LIKELIHOOD:
        return ""
    weights = [reached[name] for name in both]
    share = bootstrap([100 * values[name] / reached[name] for name in both], seed, weights=weights)
    return f"{share.mean:.0f} [{share.low:.0f}, {share.high:.0f}]"


def table_columns(results: Sequence[EvalResult]) -> list[Column]:
    """The columns of a table.

    Of tasks: likelihood, the score by each task's own metric, and the score by kinds of task. Of
    benchmarks: one column each, over its questions, and the mean over benchmarks.
    """
    if results[0].metric in METRICS:
        return [
            Column(LIKELIHOOD, lambda r: {} if r.nll is None else {r.task: r.nll}, 2),
            Column("score %", _score),
            Column("exact match %", lambda r: _score(r) if r.metric == "exact_match" else {}),
            Column("ROUGE-L %", lambda r: _score(r) if r.metric == "rougeL" else {}),
            Column(DESCRIPTION_ONLY_TITLE, lambda r: _score(r) if r.description_only else {}),
        ]
    names = sorted({r.task for r in results})
    return [
        *(Column(f"{name} %", partial(_question_scores, name), unit="questions") for name in names),
        Column("mean %", _score, unit="benchmarks"),
    ]


def _score(result: EvalResult) -> dict[str, float]:
    return {result.task: 100 * result.score}


def _question_scores(task: str, result: EvalResult) -> dict[str, float]:
    """Score of each question in %, averaged over prompt variants."""
    if result.task != task:
        return {}
    by_question = zip(*result.scores, strict=True)
    return {f"{task} {i}": 100 * sum(s) / len(s) for i, s in enumerate(by_question)}


def _show(values: dict[str, float], column: Column, usual: int, seed: int) -> str:
    """Mean and interval, with the number of values where it is not the column's."""
    if not values:
        return ""
    interval = bootstrap(list(values.values()), seed)
    low, mean, high = (
        f"{round(x, column.digits) + 0.0:.{column.digits}f}"
        for x in (interval.low, interval.mean, interval.high)
    )
    return f"{mean} [{low}, {high}]" + ("" if interval.n == usual else f" ({interval.n} {column.unit})")


def row_name(condition: str, system: str = "", several: bool = False) -> str:
    """Title of a row. A checkpoint's name is part of it only if there are several checkpoints."""
    title = ROW_TITLES.get(condition, condition)
    named = system and (several or condition not in CHECKPOINT_CONDITIONS)
    return f"{title} ({system})" if named else title


def _range(numbers: list[int]) -> str:
    return f"{min(numbers)}-{max(numbers)}" if min(numbers) < max(numbers) else str(min(numbers))


def _head(first: str, titles: list[str]) -> list[str]:
    return [_line([first, *titles]), "|" + "---|" * (len(titles) + 1)]


def _line(fields: list[str]) -> str:
    return f"| {' | '.join(fields)} |"
