"""`t2l eval` from the command line, on tiny models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hypernet.cli import app
from hypernet.evaluation.condition_names import CONDITIONS
from hypernet.evaluation.report import ROW_TITLES
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
        return CliRunner().invoke(app, ["eval", str(tiny_checkpoint), *models, "--limit", "2", *options])

    return invoke


def test_eval_prints_tables_and_names_conditions_without_adapters(
    run: Any, tasks: Path, tmp_path: Path
) -> None:
    done = run("--tasks", str(tasks), "--only", "fv_*,ii_b", "--name", "tiny")
    assert done.exit_code == 0, done.output
    assert "left out: arrow, it needs --library" in done.stderr
    assert "| **T2L, own description (evaluation wording)** |" in done.stdout
    assert "token NLL (2 tasks)" in done.stdout
    results = read_results(tmp_path / "out")
    assert {r.task for r in results} == {"fv_a", "ii_b"}
    assert {r.condition for r in results} == {
        *("copy", "base", "prompted", "icl", "matched", "training", "mismatched", "random", "empty"),
        *("matched_prompted", "matched_icl"),
    }
    assert {r.system for r in results} == {"", "tiny"}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    again = run("--tasks", str(tasks), "--only", "fv_*,ii_b", "--name", "tiny", "--conditions", "base,matched")
    assert again.exit_code == 0
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}


def test_every_condition_prints_a_row_or_its_reason(run: Any, tasks: Path) -> None:
    """`training` once printed neither where its descriptions are those of `matched`."""
    together = run("--tasks", str(tasks), "--conditions", ",".join(CONDITIONS))
    assert together.exit_code == 0, together.output
    alone = {name: run("--tasks", str(tasks), "--conditions", name) for name in ("training", "oracle")}
    for name in CONDITIONS:
        for done in filter(None, (together, alone.get(name))):
            rows = [line for line in done.stdout.splitlines() if ROW_TITLES[name] in line]
            assert rows or re.search(rf"left out: {name}\b", done.stderr), name


def test_redirected_output_has_tables_on_stdout_and_progress_on_stderr(run: Any, tasks: Path) -> None:
    done = run("--tasks", str(tasks), "--conditions", "base")
    assert done.stdout.startswith("## Tasks")
    assert "evaluate: 3 of 3" in done.stderr
    assert "results: " in done.stderr


def test_two_tasks_of_one_name_are_refused(run: Any, tasks: Path) -> None:
    lines = tasks.read_text().splitlines()
    tasks.write_text("".join(f"{line}\n" for line in [*lines, lines[0]]))
    done = run("--tasks", str(tasks), "--conditions", "base")
    assert done.exit_code == 2
    assert "two tasks are called fv_a" in done.stderr


def test_told_only_in_the_data_replaces_the_name(run: Any, tasks: Path) -> None:
    lines = [json.loads(line) | {"told_only": False} for line in tasks.read_text().splitlines()]
    lines[2]["told_only"] = True
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("--tasks", str(tasks), "--conditions", "base")
    assert "where only the description tells (1 tasks)" in done.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "nothing to evaluate on: give --tasks or --benchmarks"),
        (["--tasks", "TASKS", "--only", "fv_*,zz*, fv_"], "zz*, fv_"),
        (["--tasks", "TASKS", "--conditions", "matchd"], "matchd is unknown, did you mean matched?"),
        (["--tasks", "TASKS", "--conditions", "qq"], "qq is unknown, known are copy, base"),
        (["--tasks", "TASKS", "--conditions", "typos"], "a condition of `t2l analyse robustness`"),
        (["--tasks", "TASKS", "--conditions", "arrow"], "no condition can run"),
        (["--tasks", "none.jsonl"], "does not exist"),
        (["--tasks", "TASKS", "--trained", "TASKS"], "training has seen all its descriptions"),
        (["--benchmarks", "."], "no folder of benchmarks"),
        (["--tasks", "TASKS", "--library", "."], "library.json is missing"),
        (["--tasks", "TASKS", "--trained", "none.jsonl"], "does not exist"),
        (["--tasks", "TASKS", "--oracles", "."], "add --instances held-out"),
        (["--tasks", "TASKS", "--multitask", "."], "adapter_config.json cannot be read"),
        (["--tasks", "TASKS", "--hyperdecoder", "."], "is missing"),
        (["--tasks", "TASKS", "--server", "http://127.0.0.1:9"], "did not answer"),
        (["--tasks", "TASKS", "--server", "nowhere"], "did not answer"),
        (["--tasks", "TASKS", "--device", "gpu"], "--device"),
        (["--tasks", "TASKS", "--seed", "-1"], "--seed"),
        (["--tasks", "TASKS", "--limit", "0"], "--limit"),
        (["--tasks", "TASKS", "--out", "TASKS"], "tasks.jsonl"),
    ],
)
def test_user_errors_end_in_one_line(run: Any, tasks: Path, options: list[str], complaint: str) -> None:
    done = run(*[str(tasks) if option == "TASKS" else option for option in options])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert complaint in " ".join(done.stderr.replace("│", "").split())


def test_tasks_whose_instances_training_has_seen_are_left_out(run: Any, tasks: Path, tmp_path: Path) -> None:
    known = tmp_path / "trained.jsonl"
    # Each order holds out other inputs: together they train on all.
    seen = [i for i in json.loads(tasks.read_text().splitlines()[0])["instances"] for _ in range(5)]
    both = [
        {"task": f"x{n}", "definition": "d", "instances": s} for n, s in enumerate((seen, seen[5:] + seen[:5]))
    ]
    known.write_text("".join(json.dumps(line) + "\n" for line in both))
    done = run("--tasks", str(tasks), "--trained", str(known), "--only", "fv_*,ii_b", "--conditions", "base")
    assert done.exit_code == 0, done.output
    assert "left out: fv_a, training has seen all its instances" in done.stderr
    assert {r.task for r in read_results(tmp_path / "out")} == {"ii_b"}


def test_loras_of_another_base_model_and_broken_ones_are_refused(
    run: Any, tasks: Path, tmp_path: Path, tiny_generator: Generator
) -> None:
    lora = tiny_generator.generate(["d"])[0]
    save_adapter(tmp_path / "other", lora, "b", {"t2l.base_model": "0123"})
    refused = run("--tasks", str(tasks), "--multitask", str(tmp_path / "other"))
    assert refused.exit_code == 2 and "is for base model 0123" in refused.stderr

    oracles = tmp_path / "oracles"
    save_adapter(oracles / "fv_a", lora, "b")
    (oracles / "fv_a" / "adapter_model.safetensors").write_bytes(b"cut short")
    (oracles / "ii_b").mkdir()  # being written
    options = ["--tasks", str(tasks), "--oracles", str(oracles), "--conditions", "oracle"]
    broken = run(*options, "--instances", "held-out")
    assert broken.exit_code == 2, broken.output
    assert "left out: oracle on 2 of 3 tasks" in broken.stderr
    assert "not a whole safetensors file" in broken.stderr
