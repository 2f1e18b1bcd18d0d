"""Benchmarks: ratios of two quantities that are measured side by side in one run, on the shipped
default.

Absolute numbers depend on the machine and on its other load, so compare ratios. A full run takes
less than fifteen minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.cases import (
    arrivals,
    cache_tiers,
    decode,
    first_token,
    generation,
    growth,
    memory,
    shapes_7b,
    training,
    workload,
)
from tests.benchmarks.context import BenchContext
from tests.benchmarks.measure import Comparison

COMPARISONS = {
    "generation": generation.run,
    "memory": memory.run,
    "cache_tiers": cache_tiers.run,
    "decode": decode.run,
    "first_token": first_token.run,
    "arrivals": arrivals.run,
    "training": training.run,
    "shapes_7b": shapes_7b.run,
}
"""Cases whose results are ratios, in the order of the table."""
REPORTS = {"workload": workload.run, "growth": growth.run}
"""Cases with other results."""


def main() -> None:
    """Run the chosen cases, print the table, write runs/bench.json and, for a full run,
    docs/performance.md.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=[*COMPARISONS, *REPORTS], help="run this case; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="run two rounds of shorter cases")
    options = parser.parse_args()
    restart_with_passive_openmp()
    full = not options.only and not options.quick
    machine = report.machine()
    chosen = options.only or [*COMPARISONS, *REPORTS]
    comparisons, results = asyncio.run(measure(chosen, quick=options.quick))
    report.write_results(comparisons, results, machine, page=full)
    print(report.describe_machine(machine), "", report.markdown_table(comparisons), sep="\n")


def restart_with_passive_openmp() -> None:
    """Restart this process with OpenMP threads that sleep between tasks.

    Spinning ones slow down the rest.
    """
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when torch is loaded, which has happened
        command = [sys.executable, "-m", "tests.benchmarks.bench", *sys.argv[1:]]
        os.execv(sys.executable, command)


async def measure(chosen: list[str], *, quick: bool) -> tuple[list[Comparison], dict[str, Any]]:
    """Run cases. Returns their comparisons, in the order of the table, and their other results."""
    comparisons: list[Comparison] = []
    results: dict[str, Any] = {}
    async with BenchContext(rounds=2 if quick else 3, quick=quick) as context:
        for name in [*COMPARISONS, *REPORTS]:
            if name not in chosen:
                continue
            started = time.monotonic()
            if name in REPORTS:
                results[name] = await REPORTS[name](context)
            else:
                found = await COMPARISONS[name](context)
                print(report.markdown_table(found) + "\n", flush=True)
                comparisons += found
            results[f"seconds, {name}"] = round(time.monotonic() - started, 1)
    return comparisons, results


if __name__ == "__main__":
    main()
