"""Two real processes over Gloo train as one process does: the same losses, step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hypernet.checkpoint import load_checkpoint
from hypernet.data.tasks import Instance, Task
from hypernet.training.config import SftConfig, load_config
from hypernet.training.loop import read_log
from hypernet.training.sft import train_sft

pytestmark = pytest.mark.integration

SETTINGS = {
    "steps": 5,
    "rows": 5,  # an odd number, so that the processes have different numbers of rows
    "row_tokens": 120,
    "rank": 2,
    "alpha": 4,
    "latent_size": 16,
    "head_input_size": 16,
    "learning_rate": 0.02,
    "dropout": 0.1,
    "contrast": 0.3,
    "neftune_alpha": 5,
    "validation_share": 0.2,
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    words = [f"word{chr(97 + i)}" for i in range(12)]
    tasks = [
        Task(
            task=f"fv_{n}",
            descriptions=[f"Say number {n}.", f"Answer {n}."],
            instances=[Instance(input=w * (1 + n % 3), output=[f"{n} {w[-1]}"]) for w in words],
        )
        for n in range(12)
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(f"{t.model_dump_json()}\n" for t in tasks))
    (tmp_path / "config.yaml").write_text(json.dumps(SETTINGS))  # JSON is YAML
    return tmp_path


SCRIPT = """
import hypernet.frozen
import torch
from server.cli import main

hypernet.frozen.fastest_dtype = lambda _: torch.float32
main()
"""
"""The command, in fp32: bf16, the default of some CPUs,
rounds the parts of a batch too differently.
"""


def torchrun(files: Path, *words: object) -> str:
    """Run `t2l train sft` in two processes. Returns their output."""
    (files / "t2l.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(files / "t2l.py"), "train", "sft", "--threads", "1", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_have_the_losses_of_one(
    files: Path, tiny_base: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, settings = files / "tasks.jsonl", files / "config.yaml"
    models = ["--base-model", tiny_base, "--encoder", tiny_encoder]
    printed = torchrun(files, "--tasks", tasks, "--config", settings, "--out", files / "two", *models)
    assert printed.count("validation NLL") == 1  # only one process prints
    monkeypatch.setattr("hypernet.frozen.fastest_dtype", lambda _: torch.float32)
    train_sft(
        [tasks],
        files / "one",
        load_config(SftConfig, settings),
        base_model=tiny_base,
        encoder=str(tiny_encoder),
    )
    one, two = ([line for line in read_log(files / n) if line["kind"] == "step"] for n in ("one", "two"))
    assert [line["step"] for line in two] == [1, 2, 3, 4, 5]
    for alone, shared in zip(one, two, strict=True):
        for name in ("loss", "nll", "nll_stranger", "norm", "lr", "examples"):
            assert shared[name] == pytest.approx(alone[name], abs=1e-4), name
    assert one[0]["loss"] - one[-1]["loss"] > 0.05  # the loss falls
    load_checkpoint(files / "two" / "best")
