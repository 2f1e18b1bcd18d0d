"""The benchmarks run by hand.

These tests catch a benchmark that no longer fits the code it measures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hypernet.encoder import Encoder
from hypernet.generator import Generator
from hypernet.peft_io import load_adapter_like
from tests.benchmarks.bench import COMPARISONS, REPORTS
from tests.benchmarks.published import PublishedGenerator

pytestmark = pytest.mark.slow


def test_bench_command_imports_and_lists_every_case() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(case in done.stdout for case in [*COMPARISONS, *REPORTS])


def test_published_procedure_generates_the_same_adapter(
    tiny_generator: Generator, tiny_checkpoint: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    published = PublishedGenerator(tiny_checkpoint, Encoder.load(str(tiny_encoder)))
    published.generate("Translate to French.", tmp_path)
    weights = load_adapter_like(tmp_path, tiny_generator.spec)
    (expected,) = tiny_generator.generate(["Translate to French."])
    torch.testing.assert_close(weights.flatten(), expected.flatten())
