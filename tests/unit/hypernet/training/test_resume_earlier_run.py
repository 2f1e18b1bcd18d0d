"""An unfinished run of the code before the renames resumes with the present code.

`tests/fixtures/run-before-renames` holds the state files of an SFT and of a multi-task run, each
killed after two of four steps on the tiny models. LOSSES are those of the same runs without a kill.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hypernet.training.cli import app
from hypernet.training.loop import read_log

STATES = Path(__file__).parents[3] / "fixtures" / "run-before-renames"
LOSSES = {"sft": [5.610661, 5.556712], "multitask": [5.607359, 5.559580]}
CONFIG = "rank: 2\nalpha: 4\nrows: 4\nrow_tokens: 40\nvalidation_share: 0.3\nvalidate_minutes: 1.0e-9\n"
SHAPE = "latent_size: 8\nhead_input_size: 8\n"


@pytest.mark.parametrize("method", ["sft", "multitask"])
def test_run_of_the_earlier_code_resumes_to_the_losses_of_an_uninterrupted_run(
    method: str, tiny_base: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(STATES / method, run)
    saved = torch.load(run / "state.pt", weights_only=True)["state"]
    tasks, config = tmp_path / "tasks.jsonl", tmp_path / "config.yaml"
    lines = [
        {
            "task": f"say_{answer}",
            "descriptions": [f"Say {answer}."],
            "instances": [{"input": letter, "output": [answer]} for letter in "abcdefghijklmnopqrstuvwxyz"],
        }
        for answer in "abcdefgh"
    ]
    tasks.write_text("\n".join(map(json.dumps, lines)))
    config.write_text(CONFIG + (SHAPE if method == "sft" else ""))
    words = [method, "--tasks", tasks, "--out", run, "--config", config, "--base-model", tiny_base]
    words += ["--encoder", tiny_encoder, "--steps", 4, "--resume"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output

    steps = [line for line in read_log(run) if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [3, 4]
    assert [line["loss"] for line in steps] == pytest.approx(LOSSES[method], rel=1e-3)
    state = torch.load(run / "state.pt", weights_only=True)["state"]
    assert state["step"] == 4
    assert state["seconds"] > saved["seconds"] > 0
    assert state["best"] <= saved["best"]
