"""Likelihood of known answers, and the model's own greedy answers, from one pass over the prompts.

An example is scored in two ways: the likelihood of the target, and the answer that the model gives
itself. Both start with the same prompt. Packed rows therefore go through the model once, and their
keys and values stay in a cache. The target then serves as the draft of speculative decoding
(Leviathan et al. 2023). The model's choice after each draft token is known, so a greedy answer
starts where it differs from the draft, and an answer that equals the draft needs no further step.
The other answers are decoded in one batch. An answer that has ended, or whose score is decided,
leaves the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from hypernet.frozen import FrozenBase
from hypernet.lora import LoraBatch
from hypernet.packing import Example, PackedBatch, pack, shared_prefix

SHRINK_SHARE = 0.75
"""The batch is compacted once no more than this share of its answers is active:
that copies the cache.
"""
PROJECTION_CHUNK = 1024
"""Positions projected to the vocabulary at once: 200 MB in fp32 for 49,152 tokens."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Results of K examples.

    Attributes:
        nll: mean negative log-likelihood per token of each known response, in nats. [K].
        tokens: greedy answers without the end of turn. [K].
    """

    nll: list[float]
    tokens: list[list[int]]


CanStop = Callable[[int, list[int]], bool]
"""(example, tokens so far) -> True if its answer may end here."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A greedy answer in progress.

    Attributes:
        example: its number.
        row: the packed row that holds it.
        columns: positions of the row that it attends to: its prompt, and the accepted part of the
            draft.
        tokens: its tokens; grows. The model has not read the last one yet.
        limit: maximum number of tokens.
    """

    example: int
    row: int
    columns: list[int]
    tokens: list[int]
    limit: int


@torch.inference_mode()
def answer(
    base: FrozenBase,
    rows: list[list[Example]],
    adapters: LoraBatch | None,
    limits: list[int],
    can_stop: CanStop = lambda _, __: False,
) -> Answers:
    """Score and answer K examples in N rows.

    Args:
        base: the model.
        rows: N rows of examples. The examples of a row share an adapter. Responses end with the end
            of turn.
        adapters: N adapters, one per row, or None for the base model.
        limits: [K], maximum number of tokens of each greedy answer.
        can_stop: ends an answer early.
    """
    packed = pack(rows).to(base.device)
    cache = DynamicCache()
    with base.adapted(adapters):
        hidden = base.hidden(packed.tokens, packed.positions, packed.mask, cache)  # [N, T, hidden]
    nll, choices = _score(base, hidden[packed.rows, packed.columns], packed.targets)  # [S], [S]
    answers = _verify_drafts(rows, packed, choices.tolist(), limits)
    end = base.chat.end_of_turn

    def is_active(a: _Answer) -> bool:
        return a.tokens[-1] != end and len(a.tokens) < a.limit and not can_stop(a.example, a.tokens)

    _decode(base, adapters, cache, [a for a in answers if is_active(a)], is_active)
    tokens = [a.tokens[:-1] if a.tokens[-1] == end else a.tokens for a in answers]
    return Answers(packed.mean_per_example(nll).tolist(), tokens)


def greedy(
    base: FrozenBase, prompts: list[list[int]], adapter: LoraBatch | None, max_tokens: int
) -> list[list[int]]:
    """Greedy answers without the end of turn, all under one adapter (a batch of one) or none."""
    rows = [[Example(prompt, [base.chat.end_of_turn])] for prompt in prompts]
    return answer(base, rows, adapter and adapter.take([0] * len(rows)), [max_tokens] * len(rows)).tokens


def _score(base: FrozenBase, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """NLL of each target, and the model's own choice in its place. [S, hidden], [S] -> [S], [S]."""
    nll, choices = [], []
    chunks = zip(torch.split(hidden, PROJECTION_CHUNK), torch.split(targets, PROJECTION_CHUNK), strict=True)
    for states, known in chunks:
        logits = base.project(states).float()  # [chunk, vocabulary]
        nll.append(F.cross_entropy(logits, known, reduction="none"))
        choices.append(logits.argmax(-1))
    return torch.cat(nll), torch.cat(choices)


def _verify_drafts(
    rows: list[list[Example]], packed: PackedBatch, choices: list[int], limits: list[int]
) -> list[_Answer]:
    """Each answer up to and including its first token that differs from the draft. [K]."""
    columns = packed.columns.tolist()
    answers: list[_Answer] = []
    first = 0  # the example's first response token among all S
    for n, row in enumerate(rows):
        shared = shared_prefix(row)
        for example in row:
            limit = limits[len(answers)]
            tokens: list[int] = []
            for choice, drafted in zip(choices[first:], example.response[:limit], strict=False):
                tokens.append(choice)
                if choice != drafted:
                    break
            # The prompt's last token predicts the first response token.
            start = columns[first] + 1 - (len(example.prompt) - shared)
            attended = [*range(shared), *range(start, columns[first] + len(tokens))]
            answers.append(_Answer(len(answers), n, attended, tokens, limit))
            first += len(example.response)
    return answers


def _decode(
    base: FrozenBase,
    adapters: LoraBatch | None,
    cache: DynamicCache,
    answers: list[_Answer],
    is_active: Callable[[_Answer], bool],
) -> None:
    """Decode R answers in one batch that shrinks as they end. Their `tokens` grow in place."""
    if not answers:
        return
    key_mask = _unpack_cache(cache, answers, base.device)  # [R, W]
    positions = torch.tensor([len(a.columns) for a in answers], device=base.device)  # [R]
    while answers:
        enough = SHRINK_SHARE * len(answers)
        active = list(range(len(answers)))
        with base.adapted(adapters and adapters.take([a.row for a in answers])):
            while len(active) > enough:
                key_mask = F.pad(key_mask, (0, 1), value=True)  # [R, W + 1]
                key_positions = key_mask.long().cumsum(1) - 1  # [R, W + 1]
                last = torch.tensor([a.tokens[-1] for a in answers], device=base.device)  # [R]
                hidden = base.hidden(
                    last[:, None], positions[:, None], key_mask[:, None, None], cache, key_positions
                )  # [R, 1, hidden]
                positions = positions + 1
                choices = base.project(hidden[:, -1]).argmax(-1).tolist()  # [R]
                for i in active:
                    answers[i].tokens.append(choices[i])
                active = [i for i in active if is_active(answers[i])]
        answers = [answers[i] for i in active]
        key_mask, positions = key_mask[active], positions[active]
        cache.batch_select_indices(torch.tensor(active, dtype=torch.long, device=base.device))


def _unpack_cache(cache: DynamicCache, answers: list[_Answer], device: str) -> Tensor:
    """Turn the cache of N packed rows into one of R answers, right-aligned.

    [R, W], True where a key is.
    """
    width = max(len(a.columns) for a in answers)
    rows = torch.tensor([[a.row] for a in answers], device=device)  # [R, 1]
    columns = torch.tensor(
        [[0] * (width - len(a.columns)) + a.columns for a in answers], device=device
    )  # [R, W]
    for layer in cache.layers:
        layer.keys = layer.keys.transpose(1, 2)[rows, columns].transpose(1, 2)  # [N, h, T, d] -> [R, h, W, d]
        layer.values = layer.values.transpose(1, 2)[rows, columns].transpose(1, 2)
    return torch.tensor([[i >= width - len(a.columns) for i in range(width)] for a in answers], device=device)
