"""The benchmarks are run by hand; that they still fit what they measure is seen here."""

from __future__ import annotations

import subprocess
import sys


def test_every_part_of_the_bench_can_be_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in ("generation", "decode", "first", "arrivals", "large"))
