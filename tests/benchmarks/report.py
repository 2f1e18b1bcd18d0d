"""Where the numbers go: the terminal, runs/bench.json, and the block in docs/performance.md."""

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
from tests.benchmarks.measure import Row

ROOT = Path(__file__).parents[2]
JSON = Path("runs/bench.json")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = torch.cpu.get_capabilities()
    return {
        "cpu": cpu.get("cpu_name", platform.processor()),
        "instructions": [n for n in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if cpu.get(n)],
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def table(rows: list[Row]) -> str:
    """Rows as Markdown: medians of a and b, the median ratio and its spread over the rounds."""
    lines = ["| measure | a | b | a / b | rounds | target | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        a, b = statistics.median(row.a), statistics.median(row.b)
        spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}" if len(row.a) > 1 else "1"
        lines.append(
            f"| {row.measure} | {a:.4g} {row.unit} | {b:.4g} {row.unit} | **{row.ratio:.2f}** | {spread} "
            f"| {row.target} | {row.verdict} |"
        )
    return "\n".join(lines)


def write(rows: list[Row], notes: dict[str, Any], about: dict[str, Any], *, page: bool) -> None:
    """Keep the numbers, and with `page` put the table into docs/performance.md between its markers."""
    JSON.parent.mkdir(exist_ok=True)
    numbers = {"machine": about, "rows": [row.record() for row in rows], **notes}
    JSON.write_text(json.dumps(numbers, indent=2) + "\n")
    if page:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        if not after:
            raise SystemExit(f"{PAGE} has no {BEGIN} ... {END} block to write to")
        block = "\n\n".join([describe(about), table(rows), links()])
        PAGE.write_text(f"{before}{BEGIN}\n{block}\n{END}{after}")


def describe(about: dict[str, Any]) -> str:
    """One line under which the table stands."""
    return (
        f"Measured {about['at'][:10]}: {about['cores']} cores of {about['cpu']} "
        f"({', '.join(about['instructions'])}), torch {about['torch']}, load {about['load_before']:.1f} before."
    )
