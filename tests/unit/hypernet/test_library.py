from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hypernet.checkpoint import ModelIdentity
from hypernet.config import LoraSpec
from hypernet.library import Entry, Library, LibraryError
from hypernet.lora import LoraWeights
from hypernet.peft_io import AdapterFileError
from tests.unit.hypernet.test_model import SPEC

BASE = ModelIdentity(name="tiny", fingerprint="f00d")
ENTRY = Entry(steps=3, loss=1.5, held_out_loss=2.0)


def lora(seed: int, spec: LoraSpec = SPEC) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    return LoraWeights.unflatten(spec, torch.randn(spec.num_parameters, generator=generator))


def library(folder: Path, count: int = 3) -> Library:
    fresh = Library.open_or_create(folder, BASE, SPEC, "test")
    fresh.add({f"task_{i}": (lora(i), ENTRY) for i in range(count)})
    return fresh


def test_added_loras_are_read_back(tmp_path: Path) -> None:
    library(tmp_path)
    found = Library.open(tmp_path, base="f00d")
    assert found.names == list(found) == ["task_0", "task_1", "task_2"]
    assert len(found) == 3
    assert (found.spec, found.base_model, found.entry("task_1")) == (SPEC, BASE, ENTRY)
    for i, name in enumerate(found):
        assert torch.equal(found[name].flatten(), lora(i).flatten())
    with pytest.raises(KeyError, match="task_9"):
        found["task_9"]


def test_average_and_statistics_are_per_weight(tmp_path: Path) -> None:
    found = library(tmp_path, 4)
    every = torch.stack([lora(i).flatten() for i in range(4)])
    torch.testing.assert_close(found.average().flatten(), every.mean(0))
    mean, deviation = found.statistics()
    torch.testing.assert_close(mean.flatten(), every.mean(0))
    torch.testing.assert_close(deviation.flatten(), every.std(0, correction=1))
    stacked = found.stack().split(SPEC)
    assert torch.equal(stacked[2].flatten(), lora(2).flatten())


def test_subset_contains_only_its_tasks(tmp_path: Path) -> None:
    part = library(tmp_path).subset(["task_2"])
    assert part.names == ["task_2"]
    assert torch.equal(part.average().flatten(), lora(2).flatten())
    assert not part.statistics().deviation.flatten().any()
    with pytest.raises(LibraryError, match="no LoRA for nobody"):
        part.subset(["nobody"])
    with pytest.raises(LibraryError, match="no task is selected"):
        part.subset([])


def test_a_library_grows_over_several_runs(tmp_path: Path) -> None:
    library(tmp_path)
    again = Library.open_or_create(tmp_path, BASE, SPEC, "test")
    again.add({"more": (lora(7), ENTRY)})
    assert Library.open(tmp_path).names == ["task_0", "task_1", "task_2", "more"]


def test_libraries_of_another_model_or_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"library\.json is missing"):
        Library.open(tmp_path)
    library(tmp_path)
    with pytest.raises(LibraryError, match="not for a base model beef"):
        Library.open(tmp_path, base="beef")
    other = SPEC.model_copy(update={"rank": 2})
    with pytest.raises(LibraryError, match="lora is"):
        Library.open_or_create(tmp_path, BASE, other, "test")
    with pytest.raises(LibraryError, match="method is test"):
        Library.open_or_create(tmp_path, BASE, SPEC, "another way")
    found = Library.open(tmp_path)
    with pytest.raises(LibraryError, match="the LoRA of x is"):
        found.add({"x": (lora(0, other), ENTRY)})
    with pytest.raises(LibraryError, match="cannot name a folder"):
        found.add({"../x": (lora(0), ENTRY)})
    manifest = tmp_path / "library.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"tasks": {}}))
    with pytest.raises(LibraryError, match="lists no task"):
        Library.open(tmp_path)
    manifest.write_text(json.dumps(fields | {"author": "me"}))
    with pytest.raises(LibraryError, match="author"):
        Library.open(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("r", 2), ("lora_alpha", 1), ("use_rslora", True), ("target_modules", ["q_proj"])],
)
def test_an_adapter_of_another_shape_is_named(tmp_path: Path, field: str, value: object) -> None:
    found = library(tmp_path)
    path = tmp_path / "task_1" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(AdapterFileError, match=f"task_1.*{field} is"):
        found.average()


def test_modules_may_be_listed_in_any_order(tmp_path: Path) -> None:
    found = library(tmp_path)
    path = tmp_path / "task_1" / "adapter_config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"target_modules": fields["target_modules"][::-1]}))
    assert torch.equal(found["task_1"].flatten(), lora(1).flatten())
