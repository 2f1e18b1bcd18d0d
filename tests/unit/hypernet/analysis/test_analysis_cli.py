import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hypernet.cli import app
from tests.unit.hypernet.analysis.test_robustness import tasks


@pytest.fixture
def files(tmp_path: Path, tiny_base: Path, tiny_encoder: Path, tiny_checkpoint: Path) -> dict[str, str]:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        "".join(
            f"{t.model_copy(update={'task': n}).model_dump_json()}\n"
            for t in tasks()
            for n in (t.task, t.task + "_again")
        )
    )
    return {
        "checkpoint": str(tiny_checkpoint),
        "tasks": str(path),
        "base": str(tiny_base),
        "encoder": str(tiny_encoder),
        "out": str(tmp_path / "out"),
    }


def call(files: dict[str, str], *words: str) -> Result:
    models = ["--base-model", files["base"], "--encoder", files["encoder"]]
    return CliRunner().invoke(app, [*words, *models])


def test_map_writes_figures_and_numbers(files: dict[str, str]) -> None:
    words = ["--tasks", files["tasks"], "--out", files["out"], "--permutations", "9"]
    result = call(files, "analyse", "map", files["checkpoint"], *words)
    assert result.exit_code == 0, result.output
    assert "Spearman" in result.output
    found = json.loads((Path(files["out"]) / "map.json").read_text())
    assert len(found["points"]) == 6
    assert found["correlation"]["permutations"] == 9
    assert (Path(files["out"]) / "map.svg").read_text().startswith("<?xml")
    assert (Path(files["out"]) / "map.png").stat().st_size > 0


def test_robustness_writes_its_table(files: dict[str, str]) -> None:
    words = ["--tasks", files["tasks"], "--out", files["out"], "--limit", "2"]
    result = call(files, "analyse", "robustness", files["checkpoint"], *words)
    assert result.exit_code == 0, result.output
    shown = (Path(files["out"]) / "robustness.md").read_text()
    assert shown in result.output
    assert shown.count("| T2L, its definition alone |") == 2  # its row, and its difference from the own
    made = {path: path.stat().st_mtime_ns for path in Path(files["out"]).rglob("*.json")}
    assert len(made) == 6 * 10 - 2
    some = sorted(made)[:5]
    for path in some:
        path.unlink()
    again = call(files, "analyse", "robustness", files["checkpoint"], *words)
    assert shown in again.output
    changed = {path for path in made if path.stat().st_mtime_ns != made[path]}
    assert set(some) <= changed
    assert len(changed) < 15  # those, and copies under conditions with equal inputs


def test_nuance_prints_a_table(files: dict[str, str]) -> None:
    words = ["--prompt", "hot", "--description", "Opposite.", "--description", "French.", "--max-tokens", "3"]
    result = call(files, "analyse", "nuance", files["checkpoint"], *words)
    assert result.exit_code == 0, result.output
    assert "| Opposite. |" in result.output


def test_flops_needs_no_weights(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/config.json").write_text((Path(files["base"]) / "config.json").read_text())
    result = call(
        files | {"base": str(tmp_path / "shapes")}, "analyse", "flops", files["checkpoint"], "--shots", "5"
    )
    assert result.exit_code == 0, result.output
    assert "5-shot ICL, prefix cached" in result.output


def test_robustness_names_conditions_that_skip_tasks(files: dict[str, str]) -> None:
    words = ["--tasks", files["tasks"], "--out", files["out"], "--limit", "1"]
    result = call(files, "analyse", "robustness", files["checkpoint"], *words)
    assert "left out: definition on 2 of 6 tasks: the task has no such descriptions" in result.stderr
    assert "robustness: 58 of 58" in result.stderr


@pytest.mark.parametrize(
    ("command", "options", "complaint"),
    [
        ("map", ["--tasks", "TASKS", "--out", "FILE"], "FILE: "),
        ("map", ["--tasks", "FILE", "--out", "OUT"], "FILE"),
        ("map", ["--tasks", "ONE", "--out", "OUT"], "at least four tasks, and there are 1"),
        ("robustness", ["--tasks", "TASKS", "--out", "FILE"], "FILE"),
        ("robustness", ["--tasks", "ONE", "--out", "OUT"], "at least two tasks, and there are 1"),
        ("robustness", ["--tasks", "none.jsonl", "--out", "OUT"], "none.jsonl does not exist"),
        ("robustness", ["--tasks", "TASKS", "--trained", "none.jsonl", "--out", "OUT"], "does not exist"),
        ("nuance", ["--prompt", "p", "--description", "d", "--device", "gpu"], "--device"),
        ("nuance", ["--prompt", "p", "--description", "d", "--max-tokens", "0"], "--max-tokens"),
        ("flops", ["--answer", "0"], "--answer"),
    ],
)
def test_user_errors_end_in_one_line(
    files: dict[str, str], tmp_path: Path, command: str, options: list[str], complaint: str
) -> None:
    one, file = tmp_path / "one.jsonl", tmp_path / "file"
    one.write_text(Path(files["tasks"]).read_text().splitlines()[0] + "\n")
    file.write_text("no task")
    paths = {"TASKS": files["tasks"], "ONE": str(one), "FILE": str(file), "OUT": files["out"]}
    given = [paths.get(option, option) for option in options]
    result = call(files, "analyse", command, files["checkpoint"], *given)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert complaint.replace("FILE", str(file)) in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["map", "robustness", "nuance", "flops"])
def test_a_missing_checkpoint_is_named(files: dict[str, str], command: str) -> None:
    options = {
        "nuance": ["--prompt", "p", "--description", "d"],
        "flops": [],
    }.get(command, ["--tasks", files["tasks"], "--out", files["out"]])
    result = call(files, "analyse", command, "/nowhere", *options)
    assert result.exit_code == 2
    assert "/nowhere" in result.stderr


def test_compression_names_a_missing_result(files: dict[str, str], tmp_path: Path) -> None:
    words = ["analyse", "compression", str(tmp_path), "--results", str(tmp_path), "--out", files["out"]]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "holds no run" in result.stderr
