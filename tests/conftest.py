"""Models of a few thousand random weights, saved as real ones are: for tests that need files, not knowledge."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hypernet.base_model import fingerprint, lora_spec
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.encoder import sentence_fingerprint
from hypernet.generator import Generator
from hypernet.model import Hypernet

CHAT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<answer>{{ m['content'] }}<end>"
    "{% else %}<user>{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)


def save_tokenizer(folder: Path) -> int:
    """One token a character, with a chat template; returns the vocabulary's size."""
    special = ["<pad>", "<end>", "<user>", "<answer>", "[UNK]"]
    words = {token: i for i, token in enumerate([*special, *sorted(string.printable)])}
    characters = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="[UNK]",
        additional_special_tokens=["<user>", "<answer>"],
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with grouped queries, in a folder."""
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer with CLS pooling, in sentence-transformers' layout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    root = tmp_path_factory.mktemp("encoder")
    vocabulary = save_tokenizer(root / "bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(root / "bert")
    words = Transformer(str(root / "bert"), max_seq_length=200)
    folder = root / "tiny-encoder"
    SentenceTransformer(modules=[words, Pooling(16, pooling_mode="cls")]).save(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_encoder: Path) -> Path:
    """An L hypernetwork for the two, its heads away from their zero start so that descriptions matter."""
    base, encoder = fingerprint(tiny_base), sentence_fingerprint(tiny_encoder, tiny_encoder.name)
    config = HypernetConfig(
        lora=lora_spec(tiny_base, rank=2, alpha=4),
        variant="L",
        embedding_size=16,
        latent_size=16,
        head_input_size=16,
    )
    torch.manual_seed(0)
    model = Hypernet(config)
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("checkpoint")
    identities = CheckpointConfig(
        hypernet=config,
        base_model=ModelIdentity(name="tiny-llama", fingerprint=base),
        encoder=ModelIdentity(name="tiny-encoder", fingerprint=encoder),
    )
    save_checkpoint(folder, model, identities, torch.float32)
    return folder


@pytest.fixture(scope="session")
def tiny_generator(tiny_checkpoint: Path, tiny_encoder: Path) -> Generator:
    """What writes adapters from that checkpoint."""
    return Generator.load(tiny_checkpoint, str(tiny_encoder))
