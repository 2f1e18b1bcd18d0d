"""Exact floating-point operations of an answer: through a generated adapter, or with examples in the prompt.

T2L (Charakorn et al. 2025, appendix on FLOPs) argues that one small pass per task
replaces a long prompt per request. This module counts both sides to the last
multiplication. The usual 2N per token (Kaplan et al. 2020, section 2.1) leaves out
attention's products and every layer's real shape, so here each matrix product is
counted: [m, k] @ [k, n] costs 2 m k n. Norms, activations, softmax and rotation are left
out, as `torch.utils.flop_counter` leaves them out; tests hold every formula to that
counter, to the last digit.

Attention is counted as dense squares, what a kernel without causal skipping computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hypernet.base_model import TARGET_MODULES, BaseModelError, lora_spec, read_config
from hypernet.config import HypernetConfig, LoraSpec
from hypernet.encoder import resolve_encoder
from hypernet.model import Hypernet


@dataclass(frozen=True, slots=True)
class Decoder:
    """A causal language model of the supported families, as its matrix products see it.

    Attributes:
        linears: every linear layer of its decoder layers (rank and scale mean nothing here).
        vocabulary: rows of the output projection.
    """

    linears: LoraSpec
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Decoder:
        """From what `config.json` holds.

        Raises:
            BaseModelError: naming the field.
        """
        vocabulary = config.get("vocab_size")
        if not isinstance(vocabulary, int):
            raise BaseModelError(f"vocab_size is {vocabulary!r} in the base model's config, needs an integer")
        return cls(lora_spec(config, rank=1, alpha=1, target_modules=TARGET_MODULES), vocabulary)

    def forward(self, new: int, past: int = 0, logits: int = 1, lora: LoraSpec | None = None) -> int:
        """One pass over `new` tokens behind `past` cached ones.

        Per layer 2 new in out for each linear layer, and 2 new (past + new) queries for each of
        q k^T and scores v, where queries = heads * head_dim: under grouped queries a key serves
        several heads, but each head multiplies it anew. A LoRA of rank r adds 2 new r (in + out)
        per adapted layer.

        Args:
            new: tokens computed.
            past: tokens whose keys and values are cached.
            logits: positions projected to the vocabulary.
            lora: the adapter applied, not merged.
        """
        shapes = {m.name: m for m in self.linears.modules}
        linear = sum(2 * new * m.in_features * m.out_features for m in shapes.values())
        attention = 2 * 2 * new * (past + new) * shapes["q_proj"].out_features
        adapter = (
            0
            if lora is None
            else sum(2 * new * lora.rank * (m.in_features + m.out_features) for m in lora.modules)
        )
        head = 2 * logits * shapes["q_proj"].in_features * self.vocabulary
        return self.linears.num_layers * (linear + attention + adapter) + head

    def answer(self, prompt: int, answer: int, cached: int = 0, lora: LoraSpec | None = None) -> int:
        """Greedy decoding of `answer` tokens to a prompt whose first `cached` tokens are cached.

        The prompt's pass gives the first token; each further one is a pass over one token.
        """
        prefill = self.forward(prompt - cached, cached, lora=lora)
        return prefill + sum(self.forward(1, prompt + i, lora=lora) for i in range(answer - 1))


def sentence_encoder(config: Mapping[str, Any], tokens: int) -> int:
    """One pass of a BERT-like encoder over a text of `tokens` tokens.

    Per layer, with width h and intermediate width i: 8 T h^2 for q, k, v and output; 4 T^2 h for
    attention; 4 T h i for a plain MLP (BERT, with 2 h^2 more for its pooler), 6 T h i for a gated one (GTE).

    Raises:
        BaseModelError: the family is not counted here.
    """
    family = config.get("model_type")
    if family not in ("bert", "gte", "new"):
        raise BaseModelError(f"model_type is {family!r}: sentence encoders counted are bert, gte and new (GTE)")
    h, i = int(config["hidden_size"]), int(config["intermediate_size"])
    mlp = 4 if family == "bert" else 6
    layer = 8 * tokens * h * h + 4 * tokens * tokens * h + mlp * tokens * h * i
    pooler = 2 * h * h if family == "bert" else 0
    return int(config["num_hidden_layers"]) * layer + pooler


def encoder(name: str | None, base_model: str | None, tokens: int) -> int:
    """One pass of the encoder of that name (see `Encoder.load`); a last-token encoder projects nothing.

    Raises:
        BaseModelError: its family is not counted here.
        ModelNotFoundError: the name leads nowhere.
    """
    folder, last_token = resolve_encoder(name, base_model)
    config = read_config(folder)
    return Decoder.of(config).forward(tokens, logits=0) if last_token else sentence_encoder(config, tokens)


def hypernetwork(config: HypernetConfig) -> int:
    """One pass of the hypernetwork for one description: a whole adapter.

    With e, d, h the embedding, latent and head widths, M modules and L layers: the task encoder
    e d, mixer and block 1 16 d^2 each for M L rows, block 2 16 d^2 and block 3 8 d^2 + 8 d h for
    as many rows as the variant splits a LoRA into, and the heads 2 h out.
    """
    spec, d, h = config.lora, config.latent_size, config.head_input_size
    with torch.device("meta"):  # shapes only
        model = Hypernet(config)
    layers, modules = spec.num_layers, len(spec.modules)
    sides = 2 if model.shares_ab_head else 1
    ranks = spec.rank if model.rank_wise else 1
    parts = layers * sides * ranks  # rows that reach block 3 and a head, per module
    block2 = parts
    if config.variant == "S":  # A and B go through block 2 before the ranks are told apart
        block2 = layers * sides + (spec.rank if config.rank_position == "learned" else parts)
    trunk = 2 * config.embedding_size * (d // 2) + modules * layers * 2 * 16 * d * d
    heads = sum(2 * parts * h * model.head_size(m) for m in spec.modules)
    return trunk + modules * (block2 * 16 * d * d + parts * (8 * d * d + 8 * d * h)) + heads


@dataclass(frozen=True, slots=True)
class Cost:
    """What a variant of answering costs: once for a task, and for each request."""

    name: str
    once: int
    each: int

    def total(self, requests: int) -> int:
        """For so many requests of one task."""
        return self.once + requests * self.each

    def break_even(self, other: Cost) -> int | None:
        """Requests after which this costs less than the other; None if it never does."""
        if self.total(1) < other.total(1):
            return 1
        if self.each >= other.each:
            return None
        return math.floor((self.once - other.once) / (other.each - self.each)) + 1


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one request. Chat template and special tokens count where they stand."""

    description: int = 32
    shot: int = 64
    """One worked example: its input and output."""
    question: int = 48
    answer: int = 8
    shots: int = 3


def compare(base: Decoder, lora: LoraSpec, adapter: int, lengths: Lengths) -> list[Cost]:
    """The variants to answer, T2L first.

    Args:
        base: the base model.
        lora: the generated adapter's shape.
        adapter: cost of making it: encoder plus hypernetwork.
        lengths: tokens of a request.

    With prefix caching what stands before the question is computed once, and its keys and values
    are kept; every later token still attends to them.
    """
    question, answer = lengths.question, lengths.answer
    variants = [Cost("T2L", adapter, base.answer(question, answer, lora=lora))]
    for name, prefix in (
        (f"{lengths.shots}-shot ICL", lengths.shots * lengths.shot),
        ("description in the prompt", lengths.description),
    ):
        variants.append(Cost(name, 0, base.answer(prefix + question, answer)))
        kept = base.forward(prefix, logits=0)
        variants.append(
            Cost(f"{name}, prefix cached", kept, base.answer(prefix + question, answer, cached=prefix))
        )
    return [*variants, Cost("base model alone", 0, base.answer(question, answer))]


def table(costs: list[Cost], requests: tuple[int, ...] = (1, 10, 100)) -> str:
    """Markdown: GFLOPs once, per request and for so many requests, and when T2L starts to be cheaper."""
    ours = costs[0]
    counts = " | ".join(f"{n} request{'s' if n > 1 else ''}" for n in requests)
    lines = [
        f"| variant (GFLOPs) | once per task | each request | {counts} | T2L is cheaper from request |",
        "|---|" + "---|" * (len(requests) + 3),
    ]
    for cost in costs:
        first = ours.break_even(cost)
        start = "" if cost is ours else "never" if first is None else str(first)
        totals = " | ".join(f"{cost.total(n) / 1e9:,.2f}" for n in requests)
        lines.append(f"| {cost.name} | {cost.once / 1e9:,.3f} | {cost.each / 1e9:,.3f} | {totals} | {start} |")
    return "\n".join(lines) + "\n"
