"""A generator refuses models that its checkpoint was not trained with,
by fingerprint or else by shape.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hypernet.base_model import BaseModelError, fingerprint
from hypernet.encoder import Encoder
from hypernet.generator import Generator, MismatchError


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def load(folder: Path, encoder: Path) -> Generator:
    return Generator.load(folder, str(encoder))


def other_weights(folder: Path, target: Path) -> Path:
    """The same model with other weights: every shape fits, the fingerprint does not."""
    shutil.copytree(folder, target)
    weights = {name: t + 1 for name, t in load_file(target / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors")
    return target


@pytest.fixture
def by_name(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint as an import without weights records it: names and no fingerprints."""
    folder = tmp_path / "by-name"
    shutil.copytree(tiny_checkpoint, folder)
    edit_json(
        folder / "config.json", base_model={"name": "org/tiny-llama"}, encoder={"name": "org/tiny-encoder"}
    )
    return folder


def test_other_models_are_refused_by_recorded_fingerprints(
    tiny_checkpoint: Path, tiny_base: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    generator = load(tiny_checkpoint, tiny_encoder)
    generator.check_base_model(tiny_base)
    with pytest.raises(MismatchError, match=r"tiny-llama \(\w{16}\), not for other .*--base-model"):
        generator.check_base_model(other_weights(tiny_base, tmp_path / "other"))
    with pytest.raises(MismatchError, match="--encoder"):
        load(tiny_checkpoint, other_weights(tiny_encoder, tmp_path / "encoder"))


def test_without_fingerprints_models_are_accepted_by_name_and_shapes(
    by_name: Path, tiny_base: Path, tiny_encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator = load(by_name, tiny_encoder)
    assert (generator.base_fingerprint, generator.base_model_name) == ("", "org/tiny-llama")
    generator.check_base_model(tiny_base)
    assert generator.base_fingerprint == fingerprint(tiny_base), "keys of adapters name the real weights"
    assert not caplog.records


def test_without_fingerprints_another_name_is_logged(
    by_name: Path, tiny_base: Path, tiny_encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, encoder = tmp_path / "llama-copy", tmp_path / "encoder-copy"
    shutil.copytree(tiny_base, base)
    shutil.copytree(tiny_encoder, encoder)
    with caplog.at_level(logging.WARNING):
        load(by_name, encoder).check_base_model(base)
    assert "org/tiny-encoder (weights not recorded)" in caplog.records[0].getMessage()
    assert "org/tiny-llama (weights not recorded)" in caplog.records[1].getMessage()


def test_without_fingerprints_other_shapes_are_refused(
    by_name: Path, tiny_base: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    deeper = tmp_path / "tiny-llama"
    shutil.copytree(tiny_base, deeper)
    for field, value in (("num_hidden_layers", 3), ("num_key_value_heads", 4)):
        edit_json(deeper / "config.json", **{field: value})
        with pytest.raises(MismatchError, match="weights not recorded"):
            load(by_name, tiny_encoder).check_base_model(deeper)
    with pytest.raises(BaseModelError, match=r"config\.json cannot be read"):
        load(by_name, tiny_encoder).check_base_model(tmp_path)


@pytest.mark.parametrize(
    "recorded", ["base-model", "org/gte-small", "org/SFR-small"], ids=["last-token", "full stop", "query"]
)
def test_without_fingerprints_another_method_of_encoding_is_refused(
    by_name: Path, tiny_encoder: Path, recorded: str
) -> None:
    edit_json(by_name / "config.json", encoder={"name": recorded})
    with pytest.raises(MismatchError, match=f"{recorded}.*weights not recorded"):
        load(by_name, tiny_encoder)


def test_without_fingerprints_another_embedding_size_is_refused(by_name: Path, tiny_base: Path) -> None:
    edit_json(by_name / "config.json", encoder={"name": "base-model"})  # of size 16, the base model's is 32
    with pytest.raises(MismatchError, match="base-model"):
        Generator.load(by_name, base_model=str(tiny_base))


def test_batch_equals_one_description_at_a_time(tiny_generator: Generator) -> None:
    texts = ["Name the opposite.", "Count to three.", "Translate into French."]
    alone = [tiny_generator.generate([text])[0].flatten() for text in texts]
    for whole, single in zip(tiny_generator.generate(texts), alone, strict=True):
        torch.testing.assert_close(whole.flatten(), single, rtol=1e-4, atol=1e-5)


def test_generator_has_the_encoders_fingerprint(tiny_generator: Generator, tiny_encoder: Path) -> None:
    assert tiny_generator.encoder_fingerprint == Encoder.load(str(tiny_encoder)).fingerprint
