"""The wheel is complete: with the lock it gives a working server in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.install]

ROOT = Path(__file__).parents[3]
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
INSTALL_S, START_S = 2400, 900


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository, without what builds and runs have left beside them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path_factory.mktemp("sources")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, sources], check=True, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_holds_every_file_of_both_packages(sources: Path, wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(file.relative_to(sources))
        for package in ("hypernet", "server")
        for file in (sources / package).rglob("*")
        if file.is_file()
    }
    copies = {
        "hypernet/requirements-cpu.lock",
        *(
            f"hypernet/checkpoints/smollm2-135m/{f.name}"
            for f in (sources / "checkpoints/smollm2-135m").iterdir()
        ),
    }
    packaged = {name for name in inside if ".dist-info/" not in name}
    assert packaged == ours | copies
    assert {"hypernet/py.typed", "server/py.typed"} <= packaged
    assert {Path(name).suffix for name in packaged} >= {".py", ".cpp", ".yaml", ".safetensors", ".lock"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment after the two documented commands; returns its `bin`."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    lock = folder / "requirements-cpu.lock"
    lock.write_bytes(zipfile.ZipFile(wheel).read("hypernet/requirements-cpu.lock"))
    environment = _environment()
    command = [*pip, "--require-hashes", "-r", lock]
    # A machine whose settings name a place with the CPU build of torch needs no other index.
    done = subprocess.run(command, env=environment, timeout=INSTALL_S, capture_output=True, check=False)
    if done.returncode:
        command += ["--extra-index-url", TORCH_INDEX]
        subprocess.run(command, env=environment, timeout=INSTALL_S, check=True)
    subprocess.run([*pip, wheel], env=environment, timeout=INSTALL_S, check=True)
    return folder / "venv" / "bin"


def _environment() -> dict[str, str]:
    """The variables of this machine without those that would let the repository in."""
    ours = ("T2L_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {name: os.environ[name] for name in ("T2L_CACHE",) if name in os.environ}


def test_generate_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    command = [installed / "t2l", "generate", "Give a word with the opposite meaning.", "--out", "antonym"]
    done = subprocess.run(
        command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written = {f.name for f in (tmp_path / "antonym").iterdir()}
    assert written >= {"adapter_config.json", "adapter_model.safetensors"}


def test_serve_answers_one_request_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [installed / "t2l", "serve", "--port", "0"],
            cwd=tmp_path,
            env=_environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _ready(server, log)
        body = {"task_description": "Give a word with the opposite meaning.", "prompt": "hot", "max_tokens": 8}
        answer = httpx.post(f"{url}/v1/generate", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        assert answer.json()["completion"] == "cold"
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(timeout=60)
    assert status == 0
    assert str(ROOT) not in log.read_text(), "the server ran from the repository"


def _ready(server: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server answers; returns its address."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"url=(\S+)", log.read_text())
        if found and httpx.get(f"{found[1]}/ready").status_code == 200:
            return found[1]
        time.sleep(0.2)  # no event announces it
    raise AssertionError(f"not ready: {log.read_text()[-3000:]}")


def test_wheel_without_its_dependencies_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "t2l", "serve"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lock = Path(done.stderr.strip().rsplit(" -r ", 1)[1])
    assert lock.read_bytes() == (ROOT / "deploy" / "requirements-cpu.lock").read_bytes()
    assert str(python.parent) in done.stderr
