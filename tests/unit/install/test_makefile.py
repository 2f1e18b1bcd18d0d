"""`make` on a machine that lacks something: one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def _make(tmp_path: Path, python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    venv = tmp_path / "venv"
    return subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={python}", f"VENV={venv}", f"{venv}/.ready"],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _interpreter(tmp_path: Path, version: str) -> str:
    """The present interpreter, which takes itself for another version."""
    script = tmp_path / "python"
    pretend = f"import sys; sys.version_info = {tuple(map(int, version.split('.')))}; exec(sys.argv.pop(1))"
    script.write_text(f'#!/bin/sh\n[ "$1" = -c ] && shift\nexec {sys.executable} -c "{pretend}" "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_unsupported_interpreter_gets_one_line(tmp_path: Path, version: str) -> None:
    done = _make(tmp_path, _interpreter(tmp_path, version))
    assert done.returncode != 0
    assert done.stdout.splitlines() == [
        "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12",
    ]
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("version", ["3.11.0", "3.12.12", "3.13.9"])
def test_supported_interpreter_installs(tmp_path: Path, version: str) -> None:
    """The interpreter of this test only records its arguments."""
    python = Path(_interpreter(tmp_path, version))
    log = tmp_path / "log"
    python.write_text(python.read_text().replace("exec ", f'[ -f "$1" ] && exec echo "$@" >{log}\nexec ', 1))
    (tmp_path / "venv").mkdir()
    done = _make(tmp_path, str(python))
    assert done.returncode == 0, done.stdout
    assert log.read_text().split() == [
        "deploy/install.py",
        str(tmp_path / "venv"),
        "deploy/requirements-cpu.lock",
    ]


def test_absent_interpreter_gets_one_line(tmp_path: Path) -> None:
    for python in ("", str(tmp_path / "no-such-python")):
        done = _make(tmp_path, python)
        assert done.returncode != 0
        assert done.stdout.startswith("Python 3.11, 3.12 or 3.13 is needed")
        assert len(done.stdout.splitlines()) == 1
