"""Unseen tasks under five conditions, the last two of which could prove the method wrong.

    base        the base model sees the input alone
    prompted    the base model sees description and input
    matched     the base model sees the input; the adapter was written from the task's description
    mismatched  ... from another unseen task's description
    random      ... from a string of random letters

A hypernetwork that does as well under `mismatched` or `random` has learnt one
multi-task LoRA, not to read. Results are kept one JSON file per task and
condition, so an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from hypernet.evaluation.metrics import METRICS
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.model import LoraBatch
from hypernet.training.data import Instance, Task
from hypernet.training.packing import Example, fit_row, pack

CONDITIONS = ("base", "prompted", "matched", "mismatched", "random")
MAX_PROMPT_TOKENS = 700
MAX_ANSWER_TOKENS = 48
ROW_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Cell:
    """One task under one condition, averaged over descriptions."""

    task: str
    condition: str
    metric: str
    nll: float
    """Mean over examples of the mean negative log-likelihood per response token, in nats."""
    score: float
    """Exact match or ROUGE-L of greedy answers, 0..1."""
    examples: int
    descriptions: int


class ZeroShot:
    """Runs the conditions for one hypernetwork.

    Args:
        base: the base model.
        generator: the hypernetwork with its encoder.
        examples: instances per task, the first ones of the file.
        seed: of the random strings and of which description is whose mismatch.
    """

    def __init__(self, base: FrozenBase, generator: Generator, examples: int, seed: int) -> None:
        self.base, self.generator = base, generator
        self.examples, self.seed = examples, seed

    def run(self, tasks: list[Task], folder: Path) -> Iterator[Cell]:
        """Every cell, from `folder` where it was made before."""
        folder.mkdir(parents=True, exist_ok=True)
        strangers = derangement(len(tasks), self.seed)
        for i, task in enumerate(tasks):
            for condition in CONDITIONS:
                path = folder / f"{task.task}.{condition}.json"
                if not path.exists():
                    cell = self.cell(task, condition, tasks[strangers[i]])
                    path.write_text(json.dumps(asdict(cell)))
                yield Cell(**json.loads(path.read_text()))

    @torch.inference_mode()
    def cell(self, task: Task, condition: str, stranger: Task) -> Cell:
        """Score one task under one condition."""
        wordings = {
            "base": [""],
            "prompted": task.held_out_wordings,
            "matched": task.held_out_wordings,
            "mismatched": stranger.held_out_wordings,
            "random": random_strings(task.held_out_wordings, f"{self.seed}:{task.task}"),
        }[condition]
        in_prompt = condition == "prompted"
        adapters = [None] * len(wordings) if condition in ("base", "prompted") else self._write(wordings)
        nlls, scores, count = [], [], 0
        for wording, adapter in zip(wordings, adapters, strict=True):
            chosen = self._examples(task, wording if in_prompt else "")
            nlls.append(self._nll([example for _, example in chosen], adapter))
            answers = self._answers([example for _, example in chosen], adapter)
            metric = METRICS[task.metric]
            scores.append(_mean([metric(a, i.output) for a, (i, _) in zip(answers, chosen, strict=True)]))
            count = len(chosen)
        return Cell(task.task, condition, task.metric, _mean(nlls), _mean(scores), count, len(wordings))

    def _write(self, wordings: list[str]) -> list[LoraBatch | None]:
        """One adapter per wording, each as a batch of one."""
        written = self.generator.generate(wordings)
        return [
            LoraBatch({m: t[None] for m, t in w.a.items()}, {m: t[None] for m, t in w.b.items()})
            for w in written
        ]

    def _examples(self, task: Task, description: str) -> list[tuple[Instance, Example]]:
        head = f"{description}\n\n" if description else ""
        made = [
            (i, self.base.chat.example(head + i.input, i.output[0])) for i in task.instances[: self.examples]
        ]
        return [pair for pair in made if len(pair[1].prompt) <= MAX_PROMPT_TOKENS] or made[:1]

    def _nll(self, examples: list[Example], adapter: LoraBatch | None) -> float:
        total, left = 0.0, examples
        while left:
            row = fit_row(left, ROW_TOKENS)
            left = left[len(row) :]
            packed = pack([row])
            nll = F.cross_entropy(self.base.logits(packed, adapter), packed.targets, reduction="none")
            total += packed.mean_per_example(nll).sum().item()
        return total / len(examples)

    def _answers(self, examples: list[Example], adapter: LoraBatch | None) -> list[str]:
        longest = min(max(len(e.response) for e in examples) + 4, MAX_ANSWER_TOKENS)
        tokens = self.base.greedy([e.prompt for e in examples], adapter, longest)
        return [self.base.chat.text(t).strip() for t in tokens]


def derangement(n: int, seed: int) -> list[int]:
    """A seeded permutation in which nobody is their own stranger.

    One random cycle through all tasks: file order would pair near-twins, and a
    twin's description is no mismatch.
    """
    order = list(range(n))
    random.Random(seed).shuffle(order)
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [following[i] for i in range(n)]


def random_strings(like: list[str], seed: str) -> list[str]:
    """Random letters and spaces, as long as the given descriptions."""
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_lowercase + "  ", k=len(text))) for text in like]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
