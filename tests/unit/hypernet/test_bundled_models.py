"""Where the embedded models are kept, and what is said when one cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypernet import bundled_models
from hypernet.bundled_models import BundledModelError, default_cache_dir


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"T2L_CACHE": "/chosen", "XDG_CACHE_HOME": "/xdg"}, "/chosen"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/t2l"),
        ({"T2L_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/t2l"),
    ],
)
def test_the_cache_is_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("T2L_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)


def test_a_package_that_is_not_there_is_named_with_what_to_do() -> None:
    with pytest.raises(BundledModelError, match="no_such_package is not installed: install"):
        bundled_models._package_file("no_such_package", "model", "0")


def test_a_file_that_is_not_the_pinned_one_is_refused() -> None:
    with pytest.raises(BundledModelError, match="reinstall hypernet"):
        bundled_models._package_file("hypernet", "config.py", "0" * 64)
    with pytest.raises(BundledModelError, match="has no file nothing"):
        bundled_models._package_file("hypernet", "nothing", "0" * 64)
