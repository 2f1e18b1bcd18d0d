"""The training commands as a user types them, one after another, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from hypernet.library import Library
from hypernet.peft_io import load_adapter
from hypernet.training.cli import app

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    lines = [
        {
            "task": f"say_{answer}",
            "descriptions": [f"Say {answer}."],
            "instances": [{"input": letter, "output": [answer]} for letter in LETTERS],
        }
        for answer in "abcdefgh"
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("rank: 2\nalpha: 4\nrows: 4\nrow_tokens: 40\nvalidation_share: 0.3\n")
    return path


def t2l_train(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_from_tasks_to_a_reconstructed_library(
    tasks: Path, config: Path, tmp_path: Path, tiny_base: Path, tiny_encoder: Path
) -> None:
    common = ["--tasks", tasks, "--config", config, "--base-model", tiny_base, "--steps", 2, "--threads", 1]
    made = t2l_train("multitask", "--out", tmp_path / "multitask", *common)
    assert made.exit_code == 0, made.output
    assert load_adapter(tmp_path / "multitask" / "best", tiny_base).spec.rank == 2

    made = t2l_train("oracles", "--out", tmp_path / "library", "--count", 5, *common)
    assert "group 2 of 2" in made.output
    assert "5 LoRAs, held-out NLL" in made.output
    library = Library.open(tmp_path / "library")

    chosen = library.names[:2]
    made = t2l_train(
        *["reconstruction", "--library", tmp_path / "library", "--tasks", tasks, "--out", tmp_path / "recon"],
        *["--only", ",".join(chosen), "--variant", "M", "--target", "delta_w", "--steps", 2],
        *["--encoder", tiny_encoder, "--threads", 1],
    )
    assert made.exit_code == 0, made.output
    notes = json.loads((tmp_path / "recon" / "best" / "config.json").read_text())
    assert notes["hypernet"]["variant"] == "M"
    assert (notes["training"]["tasks"], notes["training"]["target"]) == (2, "delta_w")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["oracles", "--out", "lib"], "how long to train"),
        (["oracles", "--out", "lib", "--steps", "1", "--only", "nobody"], "no task is called nobody"),
        (["multitask", "--out", "run", "--steps", "1", "--config", "wrong.yaml"], "learning_rte"),
        (["reconstruction", "--library", "none", "--out", "run", "--steps", "1"], "library.json is missing"),
        (["reconstruction", "--library", "none", "--out", "x", "--steps", "1", "--target", "B"], "target"),
    ],
)
def test_mistakes_are_usage_errors(
    tasks: Path,
    tmp_path: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text("learning_rte: 1\n")
    refused = t2l_train(*words, "--tasks", tasks, "--base-model", tiny_base)
    assert refused.exit_code == 2
    assert message in " ".join(refused.output.replace("│", " ").split())
