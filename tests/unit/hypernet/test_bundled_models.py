"""Where bundled models are unpacked, and the errors when one is missing or cannot be unpacked."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hypernet import bundled_models
from hypernet.bundled_models import BundledModelError, base_model_path, default_cache_dir


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"T2L_CACHE": "/chosen", "XDG_CACHE_HOME": "/xdg"}, "/chosen"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/t2l"),
        ({"T2L_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/t2l"),
        ({"T2L_CACHE": "~/x"}, "/home/me/x"),
        ({"XDG_CACHE_HOME": "~/x"}, "/home/me/x/t2l"),
    ],
)
def test_default_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("T2L_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)


def test_missing_package_is_named_with_its_install_command() -> None:
    with pytest.raises(BundledModelError, match="no_such_package is not installed: install"):
        bundled_models._package_file("no_such_package", "model", "0")


def test_a_file_other_than_the_pinned_one_is_refused() -> None:
    with pytest.raises(BundledModelError, match="reinstall hypernet"):
        bundled_models._package_file("hypernet", "config.py", "0" * 64)
    with pytest.raises(BundledModelError, match="has no file nothing"):
        bundled_models._package_file("hypernet", "nothing", "0" * 64)


@pytest.fixture
def dequantised(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The target folders of dequantisation. A config.json replaces the model."""
    made: list[Path] = []

    def dequantise(_: Path, target: Path) -> None:
        made.append(target)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(bundled_models, "_dequantise", dequantise)
    monkeypatch.setattr(bundled_models, "_package_file", lambda *_: Path("unused"))
    return made


def test_base_model_is_unpacked_once_to_the_given_cache_folder(dequantised: list[Path], tmp_path: Path) -> None:
    first, second = base_model_path(tmp_path), base_model_path(tmp_path)
    assert first == second and first.is_relative_to(tmp_path) and (first / "config.json").is_file()
    assert len(dequantised) == 1
    assert [path.name for path in first.parent.iterdir()] == [first.name]  # nothing left beside it


def test_a_tilde_in_the_cache_folder_is_the_home_folder(
    dequantised: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base_model_path(Path("~/x")).is_relative_to(tmp_path / "x")


def test_unwritable_cache_folder_is_named_with_the_remedy(dequantised: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundledModelError, match=r"unpacked to .*file/x.*Not a directory.*T2L_CACHE"):
        base_model_path(tmp_path / "file" / "x")


def test_a_full_disk_leaves_nothing_behind(
    dequantised: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, target: Path) -> None:
        (target / "model.safetensors").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundled_models, "_dequantise", full)
    with pytest.raises(BundledModelError, match="No space left on device"):
        base_model_path(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_user_without_a_home_folder_is_asked_for_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("T2L_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(BundledModelError, match="T2L_CACHE"):
        default_cache_dir()
