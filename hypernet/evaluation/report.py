"""Cells to the Markdown table of a model card: means over tasks, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence

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
    for condition in CONDITIONS:
        of = by_condition[condition]
        columns = [
            _show(bootstrap([of[t].nll for t in tasks], seed), 2),
            *(_show(bootstrap([100 * of[t].score for t in g], seed), 1) if g else "" for g in (exact, rouge)),
        ]
        lines.append(f"| {NAMES[condition]} | {' | '.join(columns)} |")
    lines += ["", "Paired difference, own description minus ...:", "", *lines[0:0]]
    lines += ["| ... minus | token NLL | exact match, points | ROUGE-L, points |", "|---|---|---|---|"]
    own = by_condition["matched"]
    for condition in CONDITIONS:
        if condition == "matched":
            continue
        of = by_condition[condition]
        columns = [
            _show(bootstrap([own[t].nll - of[t].nll for t in tasks], seed), 2),
            *(
                _show(bootstrap([100 * (own[t].score - of[t].score) for t in g], seed), 1) if g else ""
                for g in (exact, rouge)
            ),
        ]
        lines.append(f"| {NAMES[condition]} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def _show(interval: Interval, digits: int) -> str:
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
