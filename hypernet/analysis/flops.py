"""Exact floating-point operations of an answer: with a generated adapter, and with examples in the
prompt.

T2L (Charakorn et al. 2025, appendix on FLOPs) argues that one small pass per task replaces a long
prompt per request. This module counts both. The usual 2N per token (Kaplan et al. 2020, section
2.1) leaves out the products of attention and the shapes of the layers. Here each matrix product is
counted: [m, k] @ [k, n] costs 2 m k n. Norms, activations, softmax and rotation are left out, as in
`torch.utils.flop_counter`. Tests compare every formula with that counter, to the last digit.

Attention is counted as dense squares, which is the cost of a kernel without causal skipping.
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
    """Matrix products of a causal language model of the supported families.

    Attributes:
        linears: every linear layer of a decoder layer. Rank and scale have no meaning here.
        vocabulary: rows of the output projection.
    """

    linears: LoraSpec
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Decoder:
        """From the content of `config.json`.

        Raises:
            BaseModelError: a field is missing; the message names it.
        """
        vocabulary = config.get("vocab_size")
        if not isinstance(vocabulary, int):
            raise BaseModelError(f"vocab_size is {vocabulary!r} in the base model's config, needs an integer")
        return cls(lora_spec(config, rank=1, alpha=1, target_modules=TARGET_MODULES), vocabulary)

    def forward(self, new: int, past: int = 0, logits: int = 1, lora: LoraSpec | None = None) -> int:
        """FLOPs of one pass over `new` tokens behind `past` cached ones.

        Per layer: 2 new in out for each linear layer, and 2 new (past + new) heads head_dim for
        each of q k^T and scores v. Under grouped queries a key serves several heads, but each head
        multiplies it anew. A LoRA of rank r adds 2 new r (in + out) per adapted layer.

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
        """FLOPs of decoding `answer` tokens after a prompt whose first `cached` tokens are cached.

        The pass over the prompt gives the first token. Each further token is a pass over one token.
        """
        prefill = self.forward(prompt - cached, cached, lora=lora)
        return prefill + sum(self.forward(1, prompt + i, lora=lora) for i in range(answer - 1))


def sentence_encoder(config: Mapping[str, Any], tokens: int) -> int:
    """FLOPs of one pass of a BERT-like encoder over `tokens` tokens.

    Per layer, with width h and intermediate width i: 8 T h^2 for q, k, v and output; 4 T^2 h for
    attention; 4 T h i for a plain MLP (BERT, which adds 2 h^2 for its pooler), 6 T h i for a gated
    one (GTE).

    Raises:
        BaseModelError: the model family is not supported.
    """
    family = config.get("model_type")
    if family not in ("bert", "gte", "new"):
        raise BaseModelError(
            f"model_type is {family!r}: supported sentence encoders are bert, gte and new (GTE)"
        )
    h, i = int(config["hidden_size"]), int(config["intermediate_size"])
    mlp = 4 if family == "bert" else 6
    layer = 8 * tokens * h * h + 4 * tokens * tokens * h + mlp * tokens * h * i
    pooler = 2 * h * h if family == "bert" else 0
    return int(config["num_hidden_layers"]) * layer + pooler


def encoder(name: str | None, base_model: str | None, tokens: int) -> int:
    """FLOPs of one pass of a named encoder (see `Encoder.load`). A last-token encoder projects no
    logits.

    Raises:
        BaseModelError: its model family is not supported.
        ModelNotFoundError: there is no such encoder.
    """
    folder, last_token = resolve_encoder(name, base_model)
    config = read_config(folder)
    return Decoder.of(config).forward(tokens, logits=0) if last_token else sentence_encoder(config, tokens)


def hypernetwork(config: HypernetConfig) -> int:
    """FLOPs of one pass of the hypernetwork, which generates a whole adapter from one description.

    e, d, h are the embedding, latent and head widths, M the modules and L the layers. The task
    encoder costs e d. Mixer and block 1 cost 16 d^2 each for M L rows. Block 2 costs 16 d^2 and
    block 3 costs 8 d^2 + 8 d h per row, with as many rows as the variant splits a LoRA into. The
    heads cost 2 h out per row.
    """
    spec, d, h = config.lora, config.latent_size, config.head_input_size
    with torch.device("meta"):  # shapes only
        model = Hypernet(config)
    layers, modules = spec.num_layers, len(spec.modules)
    sides = 2 if model.shares_ab_head else 1
    ranks = spec.rank if model.rank_wise else 1
    parts = layers * sides * ranks  # rows that reach block 3 and a head, per module
    block2 = parts
    if config.variant == "S":  # A and B go through block 2 before the ranks are separated
        block2 = layers * sides + (spec.rank if config.rank_position == "learned" else parts)
    trunk = 2 * config.embedding_size * (d // 2) + modules * layers * 2 * 16 * d * d
    heads = sum(2 * parts * h * model.head_size(m) for m in spec.modules)
    return trunk + modules * (block2 * 16 * d * d + parts * (8 * d * d + 8 * d * h)) + heads


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of a method of answering: once per task, and per request."""

    name: str
    per_task: int
    per_request: int

    def total(self, requests: int) -> int:
        """FLOPs of so many requests of one task."""
        return self.per_task + requests * self.per_request

    def break_even(self, other: Cost) -> int | None:
        """Number of requests from which this costs less than the other; None: never."""
        if self.total(1) < other.total(1):
            return 1
        if self.per_request >= other.per_request:
            return None
        return math.floor((self.per_task - other.per_task) / (other.per_request - self.per_request)) + 1


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one request. Each count includes its part of the chat template."""

    description: int = 32
    shot: int = 64
    """One solved example: its input and output."""
    question: int = 48
    answer: int = 8
    shots: int = 3


def compare(base: Decoder, lora: LoraSpec, adapter: int, lengths: Lengths) -> list[Cost]:
    """The methods of answering, T2L first.

    With prefix caching, the keys and values of the text before the question are computed once.
    Every later token still attends to them.

    Args:
        base: the base model.
        lora: shape of the generated adapter.
        adapter: FLOPs of generating it: encoder plus hypernetwork.
        lengths: tokens of a request.
    """
    question, answer = lengths.question, lengths.answer
    methods = [Cost("T2L", adapter, base.answer(question, answer, lora=lora))]
    for name, prefix in (
        (f"{lengths.shots}-shot ICL", lengths.shots * lengths.shot),
        ("description in the prompt", lengths.description),
    ):
        methods.append(Cost(name, 0, base.answer(prefix + question, answer)))
        cached = base.forward(prefix, logits=0)
        with_cache = base.answer(prefix + question, answer, cached=prefix)
        methods.append(Cost(f"{name}, prefix cached", cached, with_cache))
    return [*methods, Cost("base model alone", 0, base.answer(question, answer))]


def table(costs: list[Cost], requests: tuple[int, ...] = (1, 10, 100)) -> str:
    """Markdown: GFLOPs per task, per request and in total,
    and the request from which T2L is cheaper.
    """
    ours = costs[0]
    counts = " | ".join(f"{n} request{'s' if n > 1 else ''}" for n in requests)
    lines = [
        f"| method (GFLOPs) | once per task | each request | {counts} | T2L is cheaper from request |",
        "|---|" + "---|" * (len(requests) + 3),
    ]
    for cost in costs:
        first = ours.break_even(cost)
        start = "" if cost is ours else "never" if first is None else str(first)
        totals = " | ".join(f"{cost.total(n) / 1e9:,.2f}" for n in requests)
        lines.append(
            f"| {cost.name} | {cost.per_task / 1e9:,.3f} | {cost.per_request / 1e9:,.3f} | {totals} | {start} |"
        )
    return "\n".join(lines) + "\n"
