"""Tiny models with random weights, saved in the format of real models."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hypernet.base_model import fingerprint, lora_spec
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.encoder import sentence_fingerprint
from hypernet.model import Hypernet

CHAT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<answer>{{ m['content'] }}<end>"
    "{% else %}<user>{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)


def save_tokenizer(folder: Path) -> int:
    """Save a tokenizer with one token per character and a chat template.

    Returns the vocabulary size.
    """
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


def tiny_llama(**fields: object) -> LlamaForCausalLM:
    """A Llama of two layers with grouped queries and seeded random weights;
    `fields` change its config.
    """
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes | fields))


def save_tiny_llama(folder: Path) -> Path:
    """A tiny Llama and its tokenizer."""
    vocabulary = save_tokenizer(folder)
    tiny_llama(
        vocab_size=vocabulary,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    ).save_pretrained(folder)
    return folder


def save_tiny_encoder(folder: Path) -> Path:
    """A BERT of one layer with CLS pooling, in the layout of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    bert = folder.parent / "bert"
    vocabulary = save_tokenizer(bert)
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
    BertModel(config).save_pretrained(bert)
    words = Transformer(str(bert), max_seq_length=200)
    SentenceTransformer(modules=[words, Pooling(16, pooling_mode="cls")]).save(str(folder))
    return folder


def save_tiny_checkpoint(folder: Path, base: Path, encoder: Path) -> Path:
    """An L hypernetwork for both models.

    Its heads are not zero, so that adapters depend on descriptions.
    """
    config = HypernetConfig(
        lora=lora_spec(base, rank=2, alpha=4),
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
    identities = CheckpointConfig(
        hypernet=config,
        base_model=ModelIdentity(name=base.name, fingerprint=fingerprint(base)),
        encoder=ModelIdentity(name=encoder.name, fingerprint=sentence_fingerprint(encoder, encoder.name)),
    )
    save_checkpoint(folder, model, identities, torch.float32)
    return folder
