"""A model's folder with a damaged file is an error that names the folder,
whichever library reads the file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hypernet.base_model import lora_spec
from hypernet.encoder import Encoder
from hypernet.errors import T2lError
from hypernet.frozen import FrozenBase


def _text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def _other_shape(folder: Path) -> None:
    """Weights that do not fit config.json."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros(3, 3) for name in weights}, folder / "model.safetensors", {"format": "pt"})


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no tokenizer": _without_tokenizer,
    "config.json is not JSON": _text("config.json", "{bad"),
    "config.json without a model": _text("config.json", "{}"),
    "tokenizer.json is not JSON": _text("tokenizer.json", "{bad"),
    "weights cut short": _text("model.safetensors", "12345678"),
    "weights of another shape": _other_shape,
}
ENCODER_DAMAGE = DAMAGE | {
    "modules.json is not JSON": _text("modules.json", "[{"),
    "modules.json without a path": _text("modules.json", json.dumps([{}])),
}


@pytest.mark.parametrize("damage", ENCODER_DAMAGE)
def test_damaged_sentence_encoder_is_named(damage: str, tiny_encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "model"))
    ENCODER_DAMAGE[damage](folder)
    with pytest.raises(T2lError, match=str(folder)):
        Encoder.load(str(folder))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_base_model_is_named(damage: str, tiny_base: Path, tmp_path: Path) -> None:
    spec = lora_spec(tiny_base, rank=2, alpha=4)
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    DAMAGE[damage](folder)
    with pytest.raises(T2lError, match=str(folder)):
        FrozenBase(folder, spec, "cpu")
    with pytest.raises(T2lError, match=str(folder)):
        Encoder.load(f"last-token:{folder}")
