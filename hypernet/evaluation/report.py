"""Cells to the Markdown table of a model card: means over tasks, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypernet.evaluation.metrics import Interval, bootstrap
from hypernet.evaluation.zero_shot import CONDITIONS, Cell

NAMES = {
    "base": "base model",
    "prompted": "base + description in the prompt",
    "matched": "**T2L, own description (held out)**",
    "mismatched": "T2L, another task's description",
    "random": "T2L, random letters",
}


def table(cells: Sequence[Cell], seed: int = 0) -> str:
    """One row per condition: mean [95% interval] of NLL and of scores per metric, then matched minus each."""
    by_condition = {c: {cell.task: cell for cell in cells if cell.condition == c} for c in CONDITIONS}
    tasks = sorted(by_condition["matched"])
    exact = [t for t in tasks if by_condition["matched"][t].metric == "exact_match"]
    rouge = [t for t in tasks if t not in exact]
    lines = [
        f"| condition | token NLL ({len(tasks)} tasks) | exact match % ({len(exact)} tasks) "
        f"| ROUGE-L % ({len(rouge)} tasks) |",
        "|---|---|---|---|",
    ]
    own = by_condition["matched"]

    def row(condition: str, read: Callable[[Cell, Cell], tuple[float, float]]) -> str:
        """A table row; `read` turns (own, this) into (NLL, score in 0..1) per task."""
        values = {t: read(own[t], by_condition[condition][t]) for t in tasks}
        columns = [
            _show(bootstrap([values[t][0] for t in tasks], seed), 2),
            *(_show(bootstrap([100 * values[t][1] for t in g], seed), 1) if g else "" for g in (exact, rouge)),
        ]
        return f"| {NAMES[condition]} | {' | '.join(columns)} |"

    lines += [row(c, lambda _, cell: (cell.nll, cell.score)) for c in CONDITIONS]
    lines += ["", "Paired difference, own description minus ...:", ""]
    lines += ["| ... minus | token NLL | exact match, points | ROUGE-L, points |", "|---|---|---|---|"]
    others = [c for c in CONDITIONS if c != "matched"]
    lines += [row(c, lambda mine, cell: (mine.nll - cell.nll, mine.score - cell.score)) for c in others]
    return "\n".join(lines) + "\n"


def _show(interval: Interval, digits: int) -> str:
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
