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
    words = ["--tasks", files["tasks"], "--out", files["out"], "--examples", "2"]
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
    assert len(changed) < 15  # those, and copies of results that come to the same


def test_nuance_prints_a_table(files: dict[str, str]) -> None:
    words = ["--prompt", "hot", "--description", "Opposite.", "--description", "French.", "--max-tokens", "3"]
    result = call(files, "analyse", "nuance", files["checkpoint"], *words)
    assert result.exit_code == 0, result.output
    assert "| Opposite. |" in result.output


def test_flops_needs_no_weights(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/config.json").write_text((Path(files["base"]) / "config.json").read_text())
    result = call(files | {"base": str(tmp_path / "shapes")}, "flops", files["checkpoint"], "--shots", "5")
    assert result.exit_code == 0, result.output
    assert "5-shot ICL, prefix cached" in result.output


def test_what_is_wrong_is_said_in_a_line(files: dict[str, str]) -> None:
    result = call(files, "analyse", "nuance", "/nowhere", "--prompt", "p", "--description", "d")
    assert result.exit_code == 2
    assert "/nowhere" in result.output
