"""`t2l eval` from the command line, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from hypernet.cli import app
from hypernet.evaluation.results import read_results
from hypernet.generator import Generator
from hypernet.peft_io import save_adapter


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    lines = [
        {
            "task": name,
            "descriptions": [f"do {name}", "do it"],
            "instances": [{"input": f"{name} {i}", "output": [str(i)]} for i in range(10)],
        }
        for name in ("fv_a", "ii_b", "lol_c")
    ]
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(tiny_checkpoint: Path, tiny_base: Path, tiny_encoder: Path, tmp_path: Path) -> Any:
    def invoke(*options: str) -> Result:
        models = [
            "--base-model",
            str(tiny_base),
            "--encoder",
            str(tiny_encoder),
            "--out",
            str(tmp_path / "out"),
        ]
        return CliRunner().invoke(app, ["eval", str(tiny_checkpoint), *models, "--examples", "2", *options])

    return invoke


def words(result: Result) -> str:
    return " ".join(result.output.replace("│", "").split())


def test_it_prints_tables_and_leaves_out_what_lacks_its_inputs(run: Any, tasks: Path, tmp_path: Path) -> None:
    done = run("--tasks", str(tasks), "--only", "fv_*,ii_b", "--name", "tiny")
    assert done.exit_code == 0, done.output
    assert "left out: arrow, it needs --library" in words(done)
    assert "| **T2L, own description (evaluation wording)** |" in done.output
    assert "token NLL (2 tasks)" in done.output
    results = read_results(tmp_path / "out")
    assert {c.task for c in results} == {"fv_a", "ii_b"}
    assert {c.condition for c in results} == {
        *("copy", "base", "prompted", "icl", "matched", "training", "mismatched", "random", "empty"),
        *("matched_prompted", "matched_icl"),
    }
    assert {c.system for c in results} == {"", "tiny"}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    again = run("--tasks", str(tasks), "--only", "fv_*,ii_b", "--name", "tiny", "--conditions", "base,matched")
    assert again.exit_code == 0
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "nothing to ask"),
        (["--tasks", "TASKS", "--only", "fv_*,zz*, fv_"], "no task is called zz*, fv_"),
        (["--tasks", "TASKS", "--conditions", "matchd"], "matchd is unknown"),
        (["--tasks", "none.jsonl"], "does not exist"),
        (["--benchmarks", "."], "no folder of the ten benchmarks"),
        (["--tasks", "TASKS", "--library", "."], "library.json is missing"),
        (["--tasks", "TASKS", "--trained", "none.jsonl"], "does not exist"),
        (["--tasks", "TASKS", "--oracles", "."], "add --instances held-out"),
        (["--tasks", "TASKS", "--multitask", "."], "adapter_config.json cannot be read"),
        (["--tasks", "TASKS", "--hyperdecoder", "."], "is missing"),
        (["--tasks", "TASKS", "--server", "http://127.0.0.1:9"], "did not answer"),
    ],
)
def test_what_cannot_be_done_is_said(run: Any, tasks: Path, options: list[str], complaint: str) -> None:
    done = run(*[str(tasks) if option == "TASKS" else option for option in options])
    assert done.exit_code == 2, done.output
    assert complaint in words(done)


def test_tasks_that_training_knows_in_full_are_left_out(run: Any, tasks: Path, tmp_path: Path) -> None:
    known = tmp_path / "trained.jsonl"
    # Of two orders each holds out other inputs: together they train on all.
    seen = [i for i in json.loads(tasks.read_text().splitlines()[0])["instances"] for _ in range(5)]
    both = [{"task": "x", "definition": "d", "instances": s} for s in (seen, seen[5:] + seen[:5])]
    known.write_text("".join(json.dumps(line) + "\n" for line in both))
    done = run("--tasks", str(tasks), "--trained", str(known), "--only", "fv_*,ii_b", "--conditions", "base")
    assert done.exit_code == 0, done.output
    assert "left out: fv_a, training has seen all that could be asked" in words(done)
    assert {c.task for c in read_results(tmp_path / "out")} == {"ii_b"}


def test_loras_of_another_base_model_are_refused_and_broken_ones_named(
    run: Any, tasks: Path, tmp_path: Path, tiny_generator: Generator
) -> None:
    lora = tiny_generator.generate(["d"])[0]
    save_adapter(tmp_path / "other", lora, "b", {"t2l.base_model": "0123"})
    refused = run("--tasks", str(tasks), "--multitask", str(tmp_path / "other"))
    assert refused.exit_code == 2 and "is for base model 0123" in words(refused)

    oracles = tmp_path / "oracles"
    save_adapter(oracles / "fv_a", lora, "b")
    (oracles / "fv_a" / "adapter_model.safetensors").write_bytes(b"cut short")
    (oracles / "ii_b").mkdir()  # being written
    options = ["--tasks", str(tasks), "--oracles", str(oracles), "--conditions", "oracle"]
    broken = run(*options, "--instances", "held-out")
    assert broken.exit_code == 2, broken.output
    assert "left out: oracle of 2 tasks" in words(broken)
    assert "not a whole safetensors file" in words(broken) and "Finished results are kept in" in words(broken)
