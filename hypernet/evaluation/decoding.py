"""Likelihood of the known answers and the model's own greedy ones, from one reading of the prompts.

Scoring an example asks two things: how likely is the known answer, and what would
the model say itself? Both begin with the same prompt, so packed rows go through the
model once and leave their keys and values behind. The known answer then serves as
a draft (speculative decoding, Leviathan et al. 2023): the model's choice after each
of its tokens is known already, so a greedy answer starts where the two part, and one
that never parts from the draft needs no further step. The rest is decoded together,
and answers that have ended, or whose score is settled, leave the batch.
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

SHRINK = 0.75
"""Ended answers leave once no more than this share goes on: leaving copies all keys and values."""
PROJECTED = 1024
"""Positions projected to the vocabulary at once: 200 MB in fp32 for 49,152 tokens."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model makes of K examples.

    Attributes:
        nll: mean negative log-likelihood per token of each known response, in nats. [K].
        tokens: greedy answers, end of turn left out. [K].
    """

    nll: list[float]
    tokens: list[list[int]]


CanStop = Callable[[int, list[int]], bool]
"""Whether example i's answer need not go on after these tokens."""


@dataclass(frozen=True, slots=True)
class _Open:
    """An answer, from where it leaves its draft."""

    number: int
    row: int
    columns: list[int]
    """What it may look at of its packed row: its prompt, and the draft as far as that was right."""
    said: list[int]
    """Its tokens. The model has not read the last one yet. Grows."""
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
        rows: N rows of examples; those of a row share their adapter. Responses end with the end of turn.
        adapters: N adapters, one per row, or None for the base model.
        limits: [K], the most tokens of each greedy answer.
        can_stop: stops an answer early.
    """
    packed = pack(rows).to(base.device)
    cache = DynamicCache()
    with base.adapted(adapters):
        hidden = base.hidden(packed.tokens, packed.positions, packed.mask, cache)  # [N, T, hidden]
    nll, choices = _score(base, hidden[packed.rows, packed.columns], packed.targets)  # [S], [S]
    answers = _follow_drafts(rows, packed, choices.tolist(), limits)
    end = base.chat.end_of_turn

    def goes_on(a: _Open) -> bool:
        return a.said[-1] != end and len(a.said) < a.limit and not can_stop(a.number, a.said)

    _decode(base, adapters, cache, [a for a in answers if goes_on(a)], goes_on)
    said = [a.said[:-1] if a.said[-1] == end else a.said for a in answers]
    return Answers(packed.mean_per_example(nll).tolist(), said)


def greedy(
    base: FrozenBase, prompts: list[list[int]], adapter: LoraBatch | None, max_tokens: int
) -> list[list[int]]:
    """Greedy answers to prompts, all under one adapter (a batch of one) or none; no end of turn."""
    rows = [[Example(prompt, [base.chat.end_of_turn])] for prompt in prompts]
    return answer(base, rows, adapter and adapter.take([0] * len(rows)), [max_tokens] * len(rows)).tokens


def _score(base: FrozenBase, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each target, and the model's own choice there. [S, hidden] -> [S], [S]."""
    nll, choices = [], []
    for piece, known in zip(torch.split(states, PROJECTED), torch.split(targets, PROJECTED), strict=True):
        logits = base.project(piece).float()
        nll.append(F.cross_entropy(logits, known, reduction="none"))
        choices.append(logits.argmax(-1))
    return torch.cat(nll), torch.cat(choices)


def _follow_drafts(
    rows: list[list[Example]], packed: PackedBatch, choices: list[int], limits: list[int]
) -> list[_Open]:
    """Each answer up to and including the first token that is not its draft's. [K]."""
    columns = packed.columns.tolist()
    answers: list[_Open] = []
    spot = 0
    for n, row in enumerate(rows):
        shared = shared_prefix(row)
        for example in row:
            limit = limits[len(answers)]
            said: list[int] = []
            for choice, drafted in zip(choices[spot:], example.response[:limit], strict=False):
                said.append(choice)
                if choice != drafted:
                    break
            # The spot that predicts the first response token is the prompt's last one.
            start = columns[spot] + 1 - (len(example.prompt) - shared)
            seen = [*range(shared), *range(start, columns[spot] + len(said))]
            answers.append(_Open(len(answers), n, seen, said, limit))
            spot += len(example.response)
    return answers


def _decode(
    base: FrozenBase,
    adapters: LoraBatch | None,
    cache: DynamicCache,
    answers: list[_Open],
    goes_on: Callable[[_Open], bool],
) -> None:
    """Write every answer to its end or limit, all in one batch that shrinks as they end."""
    if not answers:
        return
    seen = _gather(cache, answers, base.device)  # [R, W], where a key is
    positions = torch.tensor([len(a.columns) for a in answers], device=base.device)
    while answers:
        enough = SHRINK * len(answers)
        going_on = list(range(len(answers)))
        with base.adapted(adapters and adapters.take([a.row for a in answers])):
            while len(going_on) > enough:
                seen = F.pad(seen, (0, 1), value=True)
                last = torch.tensor([a.said[-1] for a in answers], device=base.device)
                key_positions = seen.long().cumsum(1) - 1  # [R, W]
                hidden = base.hidden(
                    last[:, None], positions[:, None], seen[:, None, None], cache, key_positions
                )
                positions = positions + 1
                choices = base.project(hidden[:, -1]).argmax(-1).tolist()
                for i in going_on:
                    answers[i].said.append(choices[i])
                going_on = [i for i in going_on if goes_on(answers[i])]
        answers = [answers[i] for i in going_on]
        seen, positions = seen[going_on], positions[going_on]
        cache.batch_select_indices(torch.tensor(going_on, dtype=torch.long, device=base.device))


def _gather(cache: DynamicCache, answers: list[_Open], device: str) -> Tensor:
    """Turn the cache of N packed rows into one of R answers that end together. [R, W], True where a key is."""
    width = max(len(a.columns) for a in answers)
    rows = torch.tensor([[a.row] for a in answers], device=device)  # [R, 1]
    columns = torch.tensor(
        [[0] * (width - len(a.columns)) + a.columns for a in answers], device=device
    )  # [R, W]
    for layer in cache.layers:
        layer.keys = layer.keys.transpose(1, 2)[rows, columns].transpose(1, 2)  # [N, h, T, d] -> [R, h, W, d]
        layer.values = layer.values.transpose(1, 2)[rows, columns].transpose(1, 2)
    return torch.tensor([[i >= width - len(a.columns) for i in range(width)] for a in answers], device=device)
