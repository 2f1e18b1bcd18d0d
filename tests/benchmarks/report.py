"""Output of the benchmarks: the terminal, runs/bench.json, and the table in docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.figures import links
from tests.benchmarks.measure import Comparison

ROOT = Path(__file__).parents[2]
JSON = Path("runs/bench.json")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def machine() -> dict[str, Any]:
    """Description of this machine."""
    cpu = torch.cpu.get_capabilities()
    return {
        "cpu": cpu.get("cpu_name", platform.processor()),
        "instructions": [n for n in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if cpu.get(n)],
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def markdown_table(comparisons: list[Comparison]) -> str:
    """Comparisons as a Markdown table: medians of a and b, median and range of the ratio."""
    lines = ["| measure | a | b | a / b | rounds | target | |", "|---|---|---|---|---|---|---|"]
    for row in comparisons:
        a, b = statistics.median(row.a), statistics.median(row.b)
        spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}" if len(row.a) > 1 else "1"
        lines.append(
            f"| {row.measure} | {a:.4g} {row.unit} | {b:.4g} {row.unit} | **{row.ratio:.2f}** | {spread} "
            f"| {row.target} | {row.verdict} |"
        )
    return "\n".join(lines)


def write_results(
    comparisons: list[Comparison], results: dict[str, Any], info: dict[str, Any], *, page: bool
) -> None:
    """Write runs/bench.json.

    With `page`, replace the table between the markers of docs/performance.md.
    """
    JSON.parent.mkdir(exist_ok=True)
    numbers = {"machine": info, "rows": [row.as_json() for row in comparisons], **results}
    JSON.write_text(json.dumps(numbers, indent=2) + "\n")
    if page:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        if not after:
            raise SystemExit(
                f"{PAGE} has no block between {BEGIN} and {END}: add these two lines where the table belongs"
            )
        block = "\n\n".join([describe_machine(info), markdown_table(comparisons), links()])
        PAGE.write_text(f"{before}{BEGIN}\n{block}\n{END}{after}")


def describe_machine(info: dict[str, Any]) -> str:
    """The line above the table."""
    return (
        f"Measured {info['at'][:10]}: {info['cores']} cores of {info['cpu']} "
        f"({', '.join(info['instructions'])}), torch {info['torch']}, load {info['load_before']:.1f} before."
    )
