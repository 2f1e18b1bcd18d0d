import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from hypernet.base_model import lora_spec
from hypernet.bundled_models import ModelNotFoundError
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.encoder import Encoder, EncoderError, LastTokenEncoder, SentenceEncoder, last_token_fingerprint
from hypernet.generator import Generator, MismatchError
from hypernet.model import Hypernet

TEXTS = ["Name the opposite.", "Hi", "", "a much longer description that says the same thing twice, and again"]


def last_token(folder: Path) -> Encoder:
    return Encoder.load(f"last-token:{folder}")


def test_name_selects_encoder_class(tiny_base: Path, tiny_encoder: Path) -> None:
    assert isinstance(Encoder.load(str(tiny_encoder)), SentenceEncoder)
    assert isinstance(last_token(tiny_base), LastTokenEncoder)
    itself = Encoder.load("base-model", base_model=str(tiny_base))
    assert itself.fingerprint == last_token(tiny_base).fingerprint
    assert itself.name == "base-model"
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        Encoder.load("last-token:/nowhere")


def test_embeddings_have_norm_sqrt_size(tiny_base: Path, tiny_encoder: Path) -> None:
    for encoder in (last_token(tiny_base), Encoder.load(str(tiny_encoder))):
        z = encoder.encode(TEXTS)
        assert z.shape == (len(TEXTS), encoder.size)
        assert z.dtype == torch.float32
        torch.testing.assert_close(z.norm(dim=-1), torch.full((len(TEXTS),), encoder.size**0.5))


def test_last_token_embedding_is_final_state_of_last_token(tiny_base: Path) -> None:
    model, tokenizer = AutoModel.from_pretrained(tiny_base), AutoTokenizer.from_pretrained(tiny_base)
    with torch.no_grad():
        state = model(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0, -1]
    expected = state / state.norm() * 32**0.5
    torch.testing.assert_close(last_token(tiny_base).encode(TEXTS)[0], expected, rtol=1e-4, atol=1e-5)


@given(texts=st.lists(st.text("abc .", max_size=40), min_size=1, max_size=70))
@settings(max_examples=15, deadline=None)
def test_last_token_batch_equals_one_at_a_time(tiny_base: Path, texts: list[str]) -> None:
    encoder = last_token(tiny_base)
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_last_token_fingerprint_differs_from_base_model_fingerprint(tiny_base: Path) -> None:
    from hypernet.base_model import fingerprint

    assert last_token_fingerprint(tiny_base) != fingerprint(tiny_base)


def test_remote_code_needs_the_prefix(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gte-with-code"
    shutil.copytree(tiny_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Strange"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="remote-code:"):
        Encoder.load(str(folder))


def test_last_token_encoder_ends_the_sentence(tiny_base: Path) -> None:
    z = last_token(tiny_base).encode(["Name it", "Name it.", " Name it \n", "Name it!", "Count 3", "Count 3."])
    torch.testing.assert_close(z[:3], z[1].expand(3, -1))
    assert not torch.allclose(z[3], z[1], atol=1e-2)
    assert not torch.allclose(z[4], z[5], atol=1e-2)


def test_gte_encoder_appends_full_stop(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gte-large-en-v1.5"
    shutil.copytree(tiny_encoder, folder)
    encoder, plain = Encoder.load(str(folder)), Encoder.load(str(tiny_encoder))
    z = encoder.encode(["Name it", "Name it.", "Name it ", "Count 3"])
    torch.testing.assert_close(z, plain.encode(["Name it.", "Name it.", "Name it.", "Count 3"]))


def test_fingerprint_covers_full_stop_and_pooling(tiny_encoder: Path, tmp_path: Path) -> None:
    plain = Encoder.load(str(tiny_encoder))
    ending = tmp_path / "gte-small"
    shutil.copytree(tiny_encoder, ending)
    assert Encoder.load(str(ending)).fingerprint != plain.fingerprint
    query = tmp_path / "SFR-small"
    shutil.copytree(tiny_encoder, query)
    fingerprints = {Encoder.load(str(folder)).fingerprint for folder in (tiny_encoder, ending, query)}
    assert len(fingerprints) == 3
    averaging = tmp_path / "averaging"
    shutil.copytree(tiny_encoder, averaging)
    (pooling,) = averaging.glob("*Pooling/config.json")
    settings = json.loads(pooling.read_text())
    pooling.write_text(json.dumps(settings | {"pooling_mode": "mean"}))
    assert Encoder.load(str(averaging)).fingerprint != plain.fingerprint
    moved = tmp_path / "moved"
    shutil.copytree(tiny_encoder, moved)
    assert Encoder.load(str(moved)).fingerprint == plain.fingerprint


def checkpoint_for(folder: Path, encoder: Encoder, base: Path) -> Path:
    spec = lora_spec(base, rank=2, alpha=4)
    config = HypernetConfig(
        lora=spec, variant="L", embedding_size=encoder.size, latent_size=16, head_input_size=16
    )
    identity = ModelIdentity(name=encoder.name, fingerprint=encoder.fingerprint)
    base_identity = ModelIdentity(name="tiny", fingerprint="0")
    save_checkpoint(
        folder, Hypernet(config), CheckpointConfig(hypernet=config, base_model=base_identity, encoder=identity)
    )
    return folder


def test_checkpoint_rejects_another_encoder(tiny_base: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    itself = Encoder.load("base-model", base_model=str(tiny_base))
    folder = checkpoint_for(tmp_path, itself, tiny_base)
    # Trained with the base model's own state, it needs no --encoder, only to know the base model.
    generator = Generator.load(folder, base_model=str(tiny_base))
    assert generator.encoder_fingerprint == itself.fingerprint
    assert len(generator.generate(TEXTS)) == len(TEXTS)
    with pytest.raises(MismatchError, match="base-model"):
        Generator.load(folder, str(tiny_encoder))
