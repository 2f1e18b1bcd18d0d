"""`make bench`: ratios of two things measured side by side in one run, on the embedded default.

Absolute numbers depend on the machine and on whatever else it does; ratios of
neighbouring rounds are what to compare. Under fifteen minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.measure import Row
from tests.benchmarks.parts import (
    arrivals,
    decode,
    first,
    generation,
    growth,
    large,
    memory,
    mix,
    tiers,
    training,
)
from tests.benchmarks.world import World

PARTS = {
    "generation": generation.run,
    "memory": memory.run,
    "tiers": tiers.run,
    "decode": decode.run,
    "first": first.run,
    "arrivals": arrivals.run,
    "training": training.run,
    "large": large.run,
}
WITHOUT_ROWS = {"mix": mix.run, "growth": growth.run}
"""Parts whose numbers are no ratios."""


def main() -> None:
    """Run what was asked for, print the table, write runs/bench.json and the block in docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*PARTS, *WITHOUT_ROWS], help="a part; may repeat")
    parser.add_argument("--quick", action="store_true", help="two rounds of less, for a look")
    options = parser.parse_args()
    sleep_while_waiting()
    whole = not options.only and not options.quick
    about = report.machine()
    chosen = options.only or [*PARTS, *WITHOUT_ROWS]
    rows, notes = asyncio.run(measure(chosen, quick=options.quick))
    report.write(rows, notes, about, page=whole)
    print(report.describe(about), "", report.table(rows), sep="\n")


def sleep_while_waiting() -> None:
    """Start over with OpenMP threads that sleep between tasks: spinning ones would slow what runs beside."""
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when torch is loaded, which has happened
        os.execv(sys.executable, [sys.executable, *sys.argv])


async def measure(chosen: list[str], *, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """Rows of the chosen parts, in the table's order, and what does not fit into rows."""
    rows: list[Row] = []
    notes: dict[str, Any] = {}
    async with World(rounds=2 if quick else 3, quick=quick) as world:
        for name in [*PARTS, *WITHOUT_ROWS]:
            if name not in chosen:
                continue
            started = time.monotonic()
            if name in WITHOUT_ROWS:
                notes[name] = await WITHOUT_ROWS[name](world)
            else:
                found = await PARTS[name](world)
                print(report.table(found) + "\n", flush=True)
                rows += found
            notes[f"seconds, {name}"] = round(time.monotonic() - started, 1)
    return rows, notes


if __name__ == "__main__":
    main()
