"""A model's name is a folder or a hub id. Other names are errors without a traceback."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from hypernet.bundled_models import ModelNotFoundError
from hypernet.model_paths import (
    base_model_folder,
    encoder_folder,
    export_name,
    hub_id,
    model_folder,
    model_name,
)


def test_folder_is_returned_with_its_tilde_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for find in (base_model_folder, encoder_folder, model_folder):
        assert find(str(tmp_path)) == tmp_path
        assert find(f"~/{tmp_path.name}") == tmp_path


@pytest.mark.parametrize("name", ["/nope", "./nope", "~/nope", "no such", "a/b/c", "", "x\n"])
def test_invalid_hub_id_is_refused_without_the_network(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def no_network(*_: object, **__: object) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        model_folder(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelNotFoundError, match="is a file: name the folder"):
        model_folder(str(tmp_path / "config.json"))


def test_unreachable_hub_is_reported_in_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("Got: ConnectError\nAn error happened while trying to locate the files.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelNotFoundError) as error:
        base_model_folder("organisation/model")
    message = str(error.value)
    assert message.startswith("organisation/model is no folder") and "ConnectError. Check the name" in message
    assert "\n" not in message


def test_a_snapshot_in_the_hubs_cache_is_called_by_its_hub_id(tmp_path: Path) -> None:
    folder = tmp_path / "models--mistralai--Mistral-7B-v0.1" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert hub_id(str(folder)) == model_name(str(folder)) == "mistralai/Mistral-7B-v0.1"


def test_a_local_model_has_a_name_and_no_hub_id(tmp_path: Path) -> None:
    for name in (str(tmp_path), "my-model", "/gone/my-model"):
        assert hub_id(name) is None
        assert model_name(name) == Path(name).name


@pytest.mark.parametrize(
    ("named", "trained_for", "expected"),
    [
        (None, "SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
        ("/models/gemma", "google/gemma-2-2b-it", "google/gemma-2-2b-it"),
        ("google/gemma-2-2b-it", "gemma", "google/gemma-2-2b-it"),
        ("/models/gemma", "my-gemma", "my-gemma"),
    ],
)
def test_exports_prefer_a_hub_id(named: str | None, trained_for: str, expected: str) -> None:
    assert export_name(named, trained_for) == expected
