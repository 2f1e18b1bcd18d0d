"""The benchmarks run by hand. These tests catch a benchmark that no longer fits the code it measures."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.bench import COMPARISONS, REPORTS


def test_bench_command_imports_and_lists_every_case() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(case in done.stdout for case in [*COMPARISONS, *REPORTS])
