"""One reading for likelihood and answers, against transformers' own generation and lone
computation.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hypernet.base_model import lora_spec
from hypernet.evaluation.decoding import answer, greedy
from hypernet.frozen import FrozenBase
from hypernet.lora import LoraBatch
from hypernet.packing import Example, pack

WORDS = ["river", "seven apples", "why", "a b c", "zebra crossing", "q"]
LIMIT = 9


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> FrozenBase:
    return FrozenBase(tiny_base, lora_spec(tiny_base, rank=3, alpha=6), "cpu", torch.float32)


@pytest.fixture(scope="module")
def adapters(base: FrozenBase) -> LoraBatch:
    """Four of them, loud enough to change answers."""
    torch.manual_seed(0)
    size = (4, base.spec.num_layers)
    return LoraBatch(
        {m.name: torch.randn(*size, base.spec.rank, m.in_features) for m in base.spec.modules},
        {m.name: torch.randn(*size, m.out_features, base.spec.rank) for m in base.spec.modules},
    )


def alone(base: FrozenBase, prompt: list[int], adapters: LoraBatch | None, i: int = 0) -> list[int]:
    """A greedy answer by transformers' own loop."""
    with base.adapted(adapters and adapters.take([i])):
        out = base.model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=LIMIT,
            do_sample=False,
        )
    said: list[int] = out[0, len(prompt) :].tolist()
    return said[: said.index(base.chat.end_of_turn)] if base.chat.end_of_turn in said else said


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("adapted", [False, True])
def test_packed_rows_with_any_draft_answer_as_each_alone(
    base: FrozenBase, adapters: LoraBatch, seed: int, adapted: bool
) -> None:
    rng = random.Random(seed)
    end = base.chat.end_of_turn
    used = adapters if adapted else None
    rows, expected = [], []
    for n in range(4):
        row = []
        for word in rng.sample(WORDS, rng.randint(1, 4)):
            prompt = base.chat.prompt(word)
            said = alone(base, prompt, used, n)
            right = rng.randint(0, len(said))  # the draft is right so far, then wrong or over
            draft = [*said[:right], *rng.choice([[], [7], [7, 8]]), end]
            row.append(Example(prompt, draft))
            expected.append(said)
        rows.append(row)
    found = answer(base, rows, used, [LIMIT] * len(expected))
    assert found.tokens == expected
    lone = [
        F.cross_entropy(base.logits(p := pack([[e]]), used and used.take([n])), p.targets).item()
        for n, row in enumerate(rows)
        for e in row
    ]
    assert found.nll == pytest.approx(lone, rel=1e-4)


def test_limits_hold_and_greedy_gives_the_same_answers(base: FrozenBase, adapters: LoraBatch) -> None:
    prompts = [base.chat.prompt(word) for word in WORDS]
    whole = [alone(base, p, adapters, 2) for p in prompts]
    assert greedy(base, prompts, adapters.take([2]), LIMIT) == whole
    assert greedy(base, prompts, adapters.take([2]), 2) == [tokens[:2] for tokens in whole]


def test_a_decided_answer_stops_and_the_others_continue(base: FrozenBase) -> None:
    prompts = [base.chat.prompt(word) for word in WORDS]
    whole = greedy(base, prompts, None, LIMIT)
    assert max(map(len, whole)) > 3
    rows = [[Example(p, [base.chat.end_of_turn])] for p in prompts]
    found = answer(base, rows, None, [LIMIT] * len(rows), lambda i, tokens: i % 2 == 0 and len(tokens) == 3)
    assert found.tokens == [t[:3] if i % 2 == 0 else t for i, t in enumerate(whole)]
