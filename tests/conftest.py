"""Fixtures of unit and integration tests, and the distribution of tests over worker processes."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from hypernet.generator import Generator
from tests.support.tiny_models import save_tiny_checkpoint, save_tiny_encoder, save_tiny_llama

SHARED_SERVICES = ("engine", "default_server")
"""Session fixtures that take longer to start than any test.

All tests of such a fixture run in one worker.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the group that decides its worker; start the longest groups first."""
    groups = {item.nodeid: _group(item) for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.nodeid]))
    items.sort(key=lambda item: (item.get_closest_marker("integration") is None, groups[item.nodeid]))


def _group(item: pytest.Item) -> str:
    for name in SHARED_SERVICES:
        if name in getattr(item, "fixturenames", ()):
            return f"!{name}"  # sorts before paths
    return str(item.path)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with grouped queries, in a folder."""
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer with CLS pooling, in the layout of sentence-transformers."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny-encoder")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_encoder: Path) -> Path:
    """An L hypernetwork for the tiny models."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), tiny_base, tiny_encoder)


@pytest.fixture(scope="session")
def tiny_generator(tiny_checkpoint: Path, tiny_encoder: Path) -> Generator:
    """A generator with the tiny checkpoint."""
    return Generator.load(tiny_checkpoint, str(tiny_encoder))
