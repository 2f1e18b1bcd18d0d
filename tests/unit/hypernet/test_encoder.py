import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from hypernet.base_model import lora_spec
from hypernet.bundled_models import ModelNotFoundError
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.description_tokenizer import MAX_WINDOWS
from hypernet.descriptions import DescriptionTooLongError
from hypernet.encoder import Encoder, EncoderError, LastTokenEncoder, SentenceEncoder, last_token_fingerprint
from hypernet.generator import Generator, MismatchError
from hypernet.model import Hypernet

WINDOW = 200
"""Tokens that the tiny encoder reads at once. A token is a character."""
TEXTS = ["Name the opposite.", "Hi", "", "a much longer description that says the same thing twice, and again"]


@pytest.fixture(scope="module")
def plain_encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder without a chat template: it adds nothing to a text."""
    bert = tmp_path_factory.mktemp("plain") / "bert"
    shutil.copytree(tiny_encoder, bert)
    (bert / "chat_template.jinja").unlink()
    (bert / "sentence_bert_config.json").unlink()
    modules = [Transformer(str(bert), max_seq_length=WINDOW), Pooling(16, pooling_mode="cls")]
    SentenceTransformer(modules=modules).save(str(bert.parent / "plain-encoder"))
    return bert.parent / "plain-encoder"


@pytest.fixture(scope="module")
def encoder(plain_encoder: Path) -> Encoder:
    return Encoder.load(str(plain_encoder))


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


def test_last_token_encoder_appends_full_stop(tiny_base: Path) -> None:
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


letters = st.text("abcdefgh ", min_size=1, max_size=40)


@given(letters, letters)
@settings(max_examples=30, deadline=None)
def test_texts_that_differ_only_beyond_the_window_have_different_embeddings(
    encoder: Encoder, one: str, other: str
) -> None:
    assume(one != other)
    start = "Preamble. " * 25
    z = encoder.encode([start + one, start + other])
    assert not torch.equal(z[0], z[1])


@given(st.lists(st.text("abc .", min_size=1, max_size=3 * WINDOW), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_long_and_short_texts_in_a_batch_equal_one_at_a_time(encoder: Encoder, texts: list[str]) -> None:
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [4, 70])  # one batch, and more than one
def test_texts_up_to_the_window_are_embedded_as_sentence_transformers_does(
    encoder: Encoder, plain_encoder: Path, count: int
) -> None:
    texts = [*TEXTS[:3], "x" * WINDOW, *("a" * n for n in range(count - 4))]
    plain = SentenceTransformer(str(plain_encoder)).encode(texts, convert_to_tensor=True)
    expected = F.normalize(plain, dim=-1) * 4
    torch.testing.assert_close(encoder.encode(texts), expected, rtol=1e-4, atol=1e-4)


def test_a_long_text_is_the_weighted_mean_of_its_windows(encoder: Encoder) -> None:
    z = encoder.encode(["a" * 150 + "b" * 149, "a" * 150, "b" * 149])
    expected = F.normalize(150 * z[1] + 149 * z[2], dim=-1) * 4
    torch.testing.assert_close(z[0], expected, rtol=1e-4, atol=1e-4)


def test_more_tokens_than_the_encoder_reads_are_refused_with_the_limit(
    tiny_base: Path, encoder: Encoder
) -> None:
    for reader, limit in ((encoder, MAX_WINDOWS * WINDOW), (last_token(tiny_base), 512)):
        assert reader.tokenizer.max_tokens == limit
        assert reader.encode(["x" * (limit - 1) + "."]).isfinite().all()
        with pytest.raises(DescriptionTooLongError, match=f"{limit + 1} tokens.* {limit}"):
            reader.encode(["x" * limit + "."])


@pytest.mark.parametrize("added", ["prompt", "chat template"])
def test_encoder_that_adds_tokens_to_a_text_reads_one_window(
    tiny_encoder: Path, plain_encoder: Path, tmp_path: Path, added: str
) -> None:
    folder, limit = tiny_encoder, WINDOW - len(["<user>"])
    if added == "prompt":
        folder, limit = tmp_path / "prompted", WINDOW - len("query: ")
        shutil.copytree(plain_encoder, folder)
        config = json.loads((folder / "config_sentence_transformers.json").read_text())
        config |= {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    encoder = Encoder.load(str(folder))
    assert encoder.tokenizer.max_tokens == limit
    z = encoder.encode(["a" * (limit - 1) + "b", "a" * (limit - 1) + "c"])
    assert not torch.equal(z[0], z[1])
    with pytest.raises(DescriptionTooLongError):
        encoder.encode(["a" * (limit + 1)])


@pytest.mark.parametrize("kind", ["sentence", "last token"])
def test_prepared_tokens_are_the_tokens_that_the_encoder_reads(
    tiny_base: Path, plain_encoder: Path, encoder: Encoder, kind: str
) -> None:
    reader = encoder if kind == "sentence" else last_token(tiny_base)
    tokenizer = AutoTokenizer.from_pretrained(plain_encoder if kind == "sentence" else tiny_base)
    text = "Name the opposite é of it."
    assert list(reader.tokenizer(text).token_ids) == tokenizer(text, add_special_tokens=False).input_ids
    assert reader.tokenizer.windows(text) == [tokenizer(text).input_ids]
