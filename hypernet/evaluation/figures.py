"""Figures of a table: gains of the own description over the other rows, and the scores of each
task.

SVG files hold no dates and no random names, so the same results give the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hypernet.evaluation.metrics import bootstrap
from hypernet.evaluation.report import (
    MATCHED,
    comparison_rows,
    group_rows,
    paired_differences,
    row_name,
    table_columns,
)
from hypernet.evaluation.results import EvalResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = (("matched", "#1f6f8b"), ("mismatched", "#d98c5f"), ("prompted", "#b8b8b8"))
"""(condition, colour) of each bar."""


def write_figures(results: Sequence[EvalResult], folder: Path, stem: str, seed: int = 0) -> list[Path]:
    """Draw both figures of each checkpoint, and return their paths.

    Args:
        results: one group of `report.table_groups`.
        folder: output folder.
        stem: beginning of the file names.
        seed: of the intervals.
    """
    systems = [system for condition, system in group_rows(results) if condition == MATCHED]
    written = []
    for system in systems:
        name = f"{stem}-{system}" if len(systems) > 1 else stem
        for kind, figure in (
            ("differences", differences(results, system, seed)),
            ("tasks", bars(results, system)),
        ):
            path = folder / f"{name}-{kind}.svg"
            save(figure, path)
            written.append(path)
    return written


def differences(results: Sequence[EvalResult], system: str, seed: int = 0) -> Figure:
    """Forest plot of own description minus each other row: mean and 95% interval,
    one panel per column.
    """
    rows = group_rows(results)
    others = comparison_rows(rows, system)
    columns = [c for c in table_columns(results) if c.values(rows[MATCHED, system])]
    figure = _figure(3.2 * len(columns) + 2.4, 0.32 * len(others) + 1.1)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        for place, other in enumerate(others):
            values = list(paired_differences(rows[MATCHED, system], rows[other], column).values())
            if not values:
                continue
            interval = bootstrap(values, seed)
            significant = interval.low > 0 or interval.high < 0
            colour = "#1f6f8b" if significant else "#999999"
            panel.plot([interval.low, interval.high], [place, place], color=colour, linewidth=1.6)
            panel.plot(interval.mean, place, "o", color=colour, markersize=4)
        panel.axvline(0, color="black", linewidth=0.6)
        panel.set_title(column.title.replace(" %", ", points"), fontsize=8)
        panel.tick_params(labelsize=7)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(
        range(len(others)), [row_name(*other, several=other[0] == MATCHED) for other in others]
    )
    panels[0].invert_yaxis()
    return figure


def bars(results: Sequence[EvalResult], system: str) -> Figure:
    """Bars of each task's score with its own description, another's,
    and the description in the prompt.
    """
    rows = group_rows(results)
    own = rows[MATCHED, system]
    tasks = sorted(own, key=lambda task: (own[task].metric, -own[task].score))
    figure = _figure(0.28 * len(tasks) + 1.6, 3.0)
    panel = figure.subplots()
    width = 0.8 / len(BARS)
    for offset, (condition, colour) in enumerate(BARS):
        row = rows.get((condition, system)) or rows.get((condition, ""), {})
        places = [i for i, task in enumerate(tasks) if task in row]
        heights = [100 * row[tasks[i]].score for i in places]
        panel.bar(
            [i + (offset - 1) * width for i in places], heights, width, color=colour, label=row_name(condition)
        )
    panel.set_xticks(range(len(tasks)), tasks, rotation=90, fontsize=6)
    panel.set_ylabel("score %", fontsize=8)
    panel.tick_params(axis="y", labelsize=7)
    panel.legend(fontsize=7, frameon=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # slow to import; evaluation does without

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure. The same figure gives the same bytes."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
