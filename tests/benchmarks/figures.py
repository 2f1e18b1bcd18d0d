"""Figures of the benchmarks, as SVG files in docs/figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
PREFIX = "growth-"


@dataclass(slots=True)
class Curve:
    """Throughput and latency as functions of one quantity."""

    axis: str
    x: list[int] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    first_p50_ms: list[float] = field(default_factory=list)
    first_p95_ms: list[float] = field(default_factory=list)


def draw(name: str, curve: Curve) -> None:
    """Draw two panels: tokens per second, and time to the first token."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    rate, first = figure.subplots(1, 2)
    rate.plot(curve.x, curve.tokens_per_s, marker="o", color="#1f6f8b")
    rate.set_ylabel("tokens/s")
    first.plot(curve.x, curve.first_p50_ms, marker="o", color="#1f6f8b", label="p50")
    first.plot(curve.x, curve.first_p95_ms, marker="o", color="#c06c4a", label="p95")
    first.set_ylabel("ms to the first token")
    first.legend(frameon=False)
    for panel in (rate, first):
        panel.set_xscale("log", base=2)
        panel.set_xticks(curve.x, [str(x) for x in curve.x])
        panel.set_xlabel(curve.axis)
        panel.set_ylim(bottom=0)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{PREFIX}{name}.svg"
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def links() -> str:
    """Markdown images of all figures, for docs/performance.md."""
    return "\n".join(f"![{path.stem}](figures/{path.name})" for path in sorted(FOLDER.glob(f"{PREFIX}*.svg")))
