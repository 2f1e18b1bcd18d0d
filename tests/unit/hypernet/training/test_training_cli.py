"""The training commands in sequence, on tiny models."""

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
SMALL = {
    "task": "small",
    "descriptions": ["Say z."],
    "instances": [{"input": letter, "output": ["z"]} for letter in LETTERS],
}


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


def test_commands_train_oracles_and_a_hypernetwork_that_reproduces_them(
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


COMMANDS = ("sft", "multitask", "oracles", "reconstruction", "distill")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_sets_any_field_and_suggests_the_nearest_name(
    command: str, tasks: Path, tmp_path: Path
) -> None:
    words = [command, "--tasks", tasks, "--out", tmp_path / "run", "--steps", 1]
    words += {"reconstruction": ["--library", "none"], "distill": ["--teacher", "none"]}.get(command, [])
    refused = t2l_train(*words, "--set", "learning_rte=1")
    assert refused.exit_code == 2
    assert "--set: learning_rte: unknown field; did you mean learning_rate?" in refused.output
    refused = t2l_train(*words, "--set", "learning_rate=-1")
    assert refused.exit_code == 2 and "--set: learning_rate: " in refused.output
    refused = t2l_train(*words, "--set", "learning_rate")
    assert refused.exit_code == 2 and "write NAME=VALUE" in refused.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sft", "--out", "run"], "give --steps or --minutes"),
        (["oracles", "--out", "lib"], "give --steps or --minutes"),
        (["oracles", "--out", "lib", "--steps", "1", "--only", "nobody"], "no task is called nobody"),
        (
            ["multitask", "--out", "run", "--steps", "1", "--config", "wrong.yaml"],
            "did you mean learning_rate?",
        ),
        (
            ["multitask", "--out", "run", "--steps", "1", "--config", "absent.yaml"],
            "absent.yaml does not exist",
        ),
        (["sft", "--out", "run", "--steps", "1", "--variant", "X"], "--variant: variant: "),
        (["sft", "--out", "run", "--steps", "1", "--start", "absent"], "absent"),
        (["sft", "--out", "run", "--steps", "1", "--descriptions", "absent.jsonl"], "absent.jsonl"),
        (["sft", "--out", "file/run", "--steps", "1"], "file"),
        (["reconstruction", "--library", "none", "--out", "run", "--steps", "1"], "library.json is missing"),
        (["reconstruction", "--library", "none", "--out", "x", "--steps", "1", "--target", "B"], "--target"),
        (["distill", "--teacher", "absent", "--out", "run", "--steps", "1"], "absent"),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(
    tasks: Path,
    tmp_path: Path,
    tiny_base: Path,
    tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text("learning_rte: 1\n")
    Path("file").touch()
    words = [*words, *(["--encoder", str(tiny_encoder)] if words[0] != "oracles" else [])]
    refused = t2l_train(*words, "--tasks", tasks, "--base-model", tiny_base)
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr and refused.stderr.startswith("t2l: ") and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_task_file_that_is_absent_or_wrong_is_named(command: str, tmp_path: Path, tiny_base: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"task": "t", "descripton": ["Do it."], "instances": [{"input": "a", "output": ["b"]}]}')
    for path, message in ((tmp_path / "absent.jsonl", "absent.jsonl"), (wrong, "did you mean descriptions?")):
        words = [command, "--tasks", path, "--out", tmp_path / "run", "--steps", 1]
        words += ["--library", "none"] if command == "reconstruction" else []
        words += ["--teacher", "none"] if command == "distill" else []
        refused = t2l_train(*words, "--base-model", tiny_base)
        assert refused.exit_code == 2, refused.output
        if command not in ("reconstruction", "distill"):
            assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_run_on_own_tasks_prints_plain_progress_without_a_terminal(
    tasks: Path, config: Path, tmp_path: Path, tiny_base: Path, tiny_encoder: Path, tiny_checkpoint: Path
) -> None:
    with tasks.open("a") as file:
        file.write("\n" + json.dumps({**SMALL, "instances": SMALL["instances"][:4]}))
    done = t2l_train(
        *["sft", "--tasks", tasks, "--config", config, "--base-model", tiny_base, "--encoder", tiny_encoder],
        *["--set", "latent_size=16", "--set", "head_input_size=16", "--set", "validate_minutes=0.000001"],
        *["--start", tiny_checkpoint, "--steps", 2, "--out", tmp_path / "run"],
    )
    assert done.exit_code == 0, done.output
    for phase in ("loading the base model: ", "loading the encoder: ", "tokenising 9 tasks: "):
        assert phase in done.output
    assert "4 of its 4 instances can train" in done.output
    assert "9 tasks: " in done.output and "1 dropped" in done.output
    assert "step 0: validation_nll " in done.output  # the start is measured ...
    assert "step 2: validation_nll " in done.output  # ... and so is the end
    assert " 50%  step 1  loss " in done.output and " steps/s  ETA " in done.output
    assert (tmp_path / "run" / "tasks.tsv").is_file()
