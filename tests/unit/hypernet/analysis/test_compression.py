"""Weight error against performance, computed by hand on small results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypernet.analysis.compression import CompressionError, compression, draw, table
from hypernet.cli import app
from hypernet.evaluation.results import EvalResult


def result(task: str, condition: str, system: str, nll: float, score: float) -> EvalResult:
    return EvalResult(
        task=task,
        condition=condition,
        system=system,
        metric="exact_match",
        base="tiny",
        seed=0,
        n=1,
        score=score,
        nll=nll,
        wording_scores=[score],
        scores=[[score]],
        nlls=[[nll]],
        answers=[["x"]],
    )


RESULTS = [
    result("a", "base", "", 6.0, 0.0),
    result("a", "oracle", "library", 2.0, 1.0),
    result("a", "training", "recon-S", 3.0, 0.5),
    result("b", "base", "", 4.0, 0.0),
    result("b", "oracle", "library", 2.0, 1.0),
    result("b", "training", "recon-S", 2.0, 1.0),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "recon-S"
    folder.mkdir()
    lines = [
        {"kind": "validation", "loss": 9.0, "error/a": 1.0, "error/b": 1.0},
        {"kind": "step", "loss": 1.0},
        {"kind": "validation", "loss": 2.0, "error/a": 0.5, "error/b": 0.1},
        {"kind": "validation", "loss": 3.0, "error/a": 0.7, "error/b": 0.7},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_error_is_that_of_the_best_checkpoint_and_share_that_of_the_oracle_gain(run: Path) -> None:
    a, b = compression([run], RESULTS)
    assert (a.error, a.kept_share, a.score, a.oracle_score) == (0.5, pytest.approx(0.75), 0.5, 1.0)
    assert (b.error, b.kept_share) == (0.1, pytest.approx(1.0))
    # three of four nats and two of two: five of six
    assert "| recon-S | 0.300 | 83 [75, 100] | 75.0 | 100.0 |" in table([a, b])


def test_a_task_whose_oracle_gains_nothing_is_left_out_by_name(run: Path) -> None:
    a, b = compression([run], RESULTS)
    shown = table([a, replace(b, oracle_gain=-1e-3)])
    assert "| recon-S | 0.500 | 75 [75, 75] | 50.0 | 100.0 |" in shown
    assert "the oracle gains nothing: b." in shown
    with pytest.raises(CompressionError, match="no oracle is better"):
        draw([replace(a, oracle_gain=0.0)])


def test_errors_name_the_command_that_makes_the_missing_part(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=r"no result of b under training recon-S.*--name recon-S"):
        compression([run], RESULTS[:-1])
    with pytest.raises(CompressionError, match="holds no run"):
        compression([tmp_path / "none"], RESULTS)
    (run / "log.jsonl").write_text(json.dumps({"kind": "step"}) + "\n")
    with pytest.raises(CompressionError, match="has no validation yet"):
        compression([run], RESULTS)
    (run / "log.jsonl").write_text('{"kind": "val')
    with pytest.raises(CompressionError, match=r"log\.jsonl is damaged"):
        compression([run], RESULTS)


def test_command_writes_table_and_figure(run: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for i, c in enumerate(RESULTS):
        (results / f"{i}.json").write_text(c.model_dump_json())
    out = tmp_path / "out"
    arguments = ["analyse", "compression", str(run), "--results", str(results), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "recon-S" in (out / "compression.md").read_text()
    first = (out / "compression.svg").read_bytes()
    CliRunner().invoke(app, arguments)
    assert (out / "compression.svg").read_bytes() == first
