"""The scripts of the study, with a fake `t2l` that records its arguments.

Every recorded command is parsed by the real command line, so a renamed command or option fails
here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import typer

from hypernet.cli import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
STUDY = ROOT / "deploy/study"
SCRIPTS = sorted(path.stem for path in STUDY.glob("*.sh") if path.stem != "common")
EXPERIMENTS = [name for name in SCRIPTS if name not in ("all", "train", "publish")]


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    t2l = folder / "t2l"
    t2l.write_text(f"#!/bin/sh\n{{ printf '%s\\037' \"$@\"; echo; }} >> {folder}/log\n")
    t2l.chmod(0o755)
    for checkpoint in ("L-v3/last", "M/best", "S/best"):
        (folder / "out" / checkpoint).mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "hypernet.safetensors"):
            (folder / "out" / checkpoint / name).write_text(checkpoint)
    settings = {"T2L": str(t2l), "OUT": str(folder / "out"), "SHIPPED": str(folder / "shipped")}
    command = [str(STUDY / f"{script}.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=False)


def recorded(folder: Path) -> list[list[str]]:
    log = folder / "log"
    return [line.split("\037")[:-1] for line in log.read_text().splitlines()] if log.exists() else []


def usage_error(arguments: list[str]) -> str:
    """Why a command does not parse; empty if it does. The command does not run."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    try:
        command.make_context(command.name, list(arguments))
    except Exception as error:  # the class is private to typer
        return getattr(error, "message", "") or repr(error)
    return ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_a_script_is_valid(script: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run(script, tmp_path, str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    commands = recorded(tmp_path)
    assert commands or script == "publish"
    for arguments in commands:
        assert usage_error(arguments) == "", arguments


def test_unknown_commands_and_options_are_found() -> None:
    assert "--examples" in usage_error(["eval", "checkpoint", "--examples", "3"])
    assert "flops" in usage_error(["flops", "checkpoint"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_data_prints_its_usage(script: str, tmp_path: Path) -> None:
    done = run(script, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Usage: deploy/study/{script}.sh DATA" in done.stderr
    help_ = run(script, tmp_path, "--help")
    assert (help_.returncode, help_.stdout) == (0, done.stderr)


def test_finished_runs_are_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run("encoder", tmp_path, str(tmp_path / "data"))
    run("encoder", tmp_path, str(tmp_path / "data"))
    assert [command[0] for command in recorded(tmp_path)].count("train") == 1


def test_all_runs_every_experiment(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run("all", tmp_path, str(tmp_path / "data"))
    assert sorted(line.removeprefix("== ") for line in done.stdout.splitlines()) == sorted(EXPERIMENTS)


def test_publish_copies_checkpoints_that_everybody_can_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run("publish", tmp_path, str(tmp_path / "data"))
    for suffix, source in (("", "L-v3/last"), ("-m", "M/best"), ("-s", "S/best")):
        published = tmp_path / f"shipped{suffix}" / "config.json"
        assert published.read_text() == source
        assert published.stat().st_mode & 0o777 == 0o644
