"""Files are written completely or not at all, with the mode of the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hypernet.base_model import lora_spec
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig, LoraSpec
from hypernet.evaluation.results import EvalResult, ResultStore
from hypernet.files import apply_umask, write_atomically
from hypernet.library import Entry, Library
from hypernet.lora import LoraWeights
from hypernet.model import Hypernet
from hypernet.peft_io import save_adapter

BASE = ModelIdentity(name="tiny", fingerprint="0")


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def assert_modes(folder: Path, umask: int) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o666 & ~umask)}


@pytest.fixture
def spec(tiny_base: Path) -> LoraSpec:
    return lora_spec(tiny_base, rank=2, alpha=4)


@pytest.fixture
def lora(spec: LoraSpec) -> LoraWeights:
    return LoraWeights.unflatten(spec, torch.zeros(spec.num_parameters))


def test_checkpoints_follow_the_umask(umask: int, spec: LoraSpec, tmp_path: Path) -> None:
    config = HypernetConfig(lora=spec, variant="L", embedding_size=8, latent_size=16, head_input_size=16)
    save_checkpoint(
        tmp_path, Hypernet(config), CheckpointConfig(hypernet=config, base_model=BASE, encoder=BASE)
    )
    assert_modes(tmp_path, umask)


def test_adapters_and_libraries_follow_the_umask(umask: int, lora: LoraWeights, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", lora, "tiny")
    library = Library.open_or_create(tmp_path / "library", BASE, lora.spec, "test")
    library.add({"a": (lora, Entry(steps=1, loss=1, held_out_loss=1))})
    assert_modes(tmp_path, umask)


def test_results_follow_the_umask(umask: int, tmp_path: Path) -> None:
    fields = {"task": "t", "condition": "base", "system": "", "metric": "exact_match", "n": 1, "seed": 0}
    result = EvalResult.model_construct(**fields, score=1.0, nll=None)  # type: ignore[arg-type]
    ResultStore(tmp_path).save(result, "key")
    assert_modes(tmp_path, umask)


def test_files_of_other_libraries_can_be_given_the_umask(umask: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch(mode=0o600)
    apply_umask(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert_modes(tmp_path, umask)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write_atomically(path, "old")

    def no_rename(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_rename)
        with pytest.raises(OSError, match="no"):
            write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"] and path.read_text() == "old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
