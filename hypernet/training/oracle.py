"""Oracles: one plain LoRA per task, trained on that task alone, for reconstruction (T2L section
4.1).

A LoRA trains on little data, and the base model is the same for all. So several tasks train at
once: row i of every batch belongs to task i and runs under its LoRA. Losses are summed, gradients
are clipped per task, and AdamW works element by element, so each LoRA equals the one that training
alone would give. A group of tasks is one run of the training loop, in `LIBRARY/.groups/`. When it
ends, its LoRAs join the library together. After a kill, the same command continues.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from hypernet.checkpoint import ModelIdentity
from hypernet.config import LoraSpec
from hypernet.data.tasks import Task, TaskFileError, load_all, select_names
from hypernet.frozen import FrozenBase
from hypernet.library import Entry, Library
from hypernet.lora import LoraBatch, LoraWeights
from hypernet.packing import Example, fit_row, pack
from hypernet.training.config import OracleConfig
from hypernet.training.loop import StepResult, Trainer
from hypernet.training.losses import example_nll, sft_loss
from hypernet.training.progress import Reporter
from hypernet.training.static_lora import StaticLora
from hypernet.training.training_tasks import MIN_EXAMPLES, TrainingTask, draw_row, prepare, tokenised

GROUPS = ".groups"
"""Folder of unfinished runs. No task can have this name."""


@dataclass(slots=True)
class OracleTask:
    """A task with its examples in three disjoint parts."""

    name: str
    training: TrainingTask
    choosing: list[Example]
    held_out: list[Example]


class OracleLoras(nn.Module):
    """The LoRAs of a group, and the best state of each so far. Both are saved and resumed."""

    def __init__(self, spec: LoraSpec, seeds: list[int]) -> None:
        super().__init__()
        self.lora = StaticLora(spec, seeds)
        self.best = copy.deepcopy(self.lora).requires_grad_(False)
        self.register_buffer("best_loss", torch.full((len(seeds),), torch.inf))
        self.register_buffer("best_step", torch.zeros(len(seeds), dtype=torch.long))

    @torch.no_grad()
    def keep_best(self, losses: Tensor, step: int) -> None:
        """Keep the state of every LoRA whose loss is lower than before. losses: [K]."""
        better = losses < self.get_buffer("best_loss")  # [K]
        for kept, new in zip(self.best.parameters(), self.lora.parameters(), strict=True):
            kept[better] = new[better]
        self.get_buffer("best_loss")[better] = losses[better]
        self.get_buffer("best_step")[better] = step


class OracleGroup:
    """Tasks that train at once, and the step that the loop calls."""

    def __init__(self, config: OracleConfig, tasks: list[OracleTask], base: FrozenBase) -> None:
        self.config, self.tasks, self.base = config, tasks, base
        seeds = [_seed(config, task.name) for task in tasks]
        self.model = OracleLoras(base.spec, seeds).to(base.device)

    def step(self, number: int) -> StepResult:
        """Sum of the tasks' losses; a task's batch depends on (seed, task, step) alone."""
        if number % self.config.choose_every == 0:
            self.select_best(number)
        rows = [
            draw_row(task.training, random.Random(f"{self.config.seed}:{task.name}:{number}"), self.config)
            for task in self.tasks
        ]
        adapters: LoraBatch = self.model.lora()
        packed = pack(rows, self.config.row_multiple)
        parts = [pack([row]).to(self.base.device) for row in rows]
        logits = self.base.logits(packed, adapters)  # [S, vocabulary], row after row
        losses, nlls = [], []
        its = logits.split([len(part.targets) for part in parts])  # type: ignore[no-untyped-call]
        for i, part in enumerate(parts):
            loss, nll = sft_loss(
                its[i],
                part,
                adapters.take([i]),
                label_smoothing=self.config.label_smoothing,
                adapter_penalty=self.config.adapter_penalty,
                fused=self.config.compile,
            )
            losses.append(loss)
            nlls.append(nll.mean())
        metrics = {"nll": torch.stack(nlls).mean().item(), "examples": len(packed.example_rows)}
        return StepResult(torch.stack(losses).sum(), packed.num_tokens, metrics)

    def select_best(self, number: int) -> None:
        """Measure every LoRA on the examples that choose its best step, and keep the best."""
        losses = self.losses([task.choosing for task in self.tasks], self.model.lora())
        self.model.keep_best(losses, number)

    def chosen_loss(self) -> dict[str, float]:
        """For the log: NLL of the best LoRAs so far, mean over tasks."""
        return {"chosen_nll": self.model.get_buffer("best_loss").mean().item()}

    def results(self) -> dict[str, tuple[LoraWeights, Entry]]:
        """Each task's best LoRA, measured on its held-out instances."""
        held_out = self.losses([task.held_out for task in self.tasks], self.model.best())
        best: LoraBatch = self.model.best.values()
        loras = best.split(self.base.spec)
        return {
            task.name: (
                lora,
                Entry(
                    steps=int(self.model.get_buffer("best_step")[i]),
                    loss=self.model.get_buffer("best_loss")[i].item(),
                    held_out_loss=held_out[i].item(),
                ),
            )
            for i, (task, lora) in enumerate(zip(self.tasks, loras, strict=True))
        }

    @torch.no_grad()
    def losses(self, examples: list[list[Example]], adapters: LoraBatch) -> Tensor:
        """Token NLL per task, mean over its examples, under its own LoRA. [K]."""
        total, count = torch.zeros(2, len(examples), device=self.base.device)
        for wave in zip_longest(*(_rows(e, self.config.row_tokens) for e in examples)):
            present = [i for i, row in enumerate(wave) if row]
            packed = pack([wave[i] for i in present]).to(self.base.device)
            nll = example_nll(self.base.logits(packed, adapters.take(present)), packed)  # [examples]
            owner = torch.tensor(present, device=nll.device)[packed.example_rows]
            total.index_add_(0, owner, nll)
            count.index_add_(0, owner, torch.ones_like(nll))
        mean: Tensor = total / count
        return mean


def clip_norm_per_lora(model: nn.Module, limit: float) -> Tensor:
    """Limit the norm of each LoRA's gradients, tensors being [K, ...]; returns the largest norm."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]  # each [K, ...]
    norms = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0).sqrt()  # [K]
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))
    largest: Tensor = norms.max()
    return largest


def train_oracles(
    tasks: list[Path],
    library: Path,
    config: OracleConfig,
    *,
    base_model: Path,
    device: str = "cpu",
    only: str | None = None,
    count: int | None = None,
) -> Library:
    """Train one LoRA per task into a library, `config.rows` tasks at a time; LoRAs that are there
    already stay.

    A task that lacks enough short examples is reported and left out.

    Args:
        tasks: task files, for training or for evaluation: only training instances are trained on.
        library: the library's folder, see `hypernet.library`.
        config: the same run for every task.
        base_model: a transformers folder.
        device: a torch device.
        only, count: some of the tasks, see `tasks.select_names`.

    Raises:
        LibraryError: the folder holds a library of another base model, shape or start.
        TaskFileError: a task file cannot be read, `only` names none of its tasks, or no task can be
            trained on.
    """
    reporter = Reporter()
    every = {task.task: task for task in load_all(tasks)}
    chosen = select_names(list(every), only, count)
    with reporter.phase("loading the base model"):
        base = FrozenBase(base_model, config.lora_spec(base_model), device)
    if config.compile:
        base.compile()
    identity = ModelIdentity(name=base.name, fingerprint=base.fingerprint)
    method = f"one LoRA per task by SFT, {config.start} start, seed {config.seed}"
    oracles = Library.open_or_create(library, identity, base.spec, method)
    ready = []
    for name in (name for name in chosen if name not in oracles.names):
        task = _prepare(every[name], base, config)
        if task is None:
            reporter.line(
                f"{name} is dropped: fewer than {MIN_EXAMPLES} examples "
                f"of at most {config.max_example_tokens} tokens"
            )
        else:
            ready.append(task)
    if not ready and not oracles.names:
        raise TaskFileError("no task has enough examples to train on")
    ready.sort(key=lambda task: task.training.mean_length)  # rows of like length: little padding
    groups = [ready[i : i + config.rows] for i in range(0, len(ready), config.rows)]
    for number, group in enumerate(groups, start=1):
        reporter.line(f"group {number} of {len(groups)}: {', '.join(task.name for task in group)}")
        _train_group(oracles, config, group, base, reporter)
    return oracles


def _train_group(
    oracles: Library, config: OracleConfig, tasks: list[OracleTask], base: FrozenBase, reporter: Reporter
) -> None:
    """Train a group to its end, from its saved state if there is one, and add it to the library."""
    what = json.dumps([config.model_dump(mode="json"), [task.name for task in tasks]])
    folder = oracles.folder / GROUPS / hashlib.sha256(what.encode()).hexdigest()[:16]
    group = OracleGroup(config, tasks, base)
    # The loop saves no checkpoint: each LoRA has its own best step, and the model keeps it.
    trainer = Trainer(
        folder,
        group.model,
        config,
        group.step,
        group.chosen_loss,
        lambda *_: None,
        clip=clip_norm_per_lora,
        reporter=reporter,
    )
    trainer.resume()
    state = trainer.run()
    group.select_best(state.step)
    oracles.add(group.results())
    (folder / "state.pt").unlink()  # the log stays


def _prepare(task: Task, base: FrozenBase, config: OracleConfig) -> OracleTask | None:
    """Tokenise a task and split its examples; None if there are too few."""
    ready = prepare(task, base.chat, config.max_example_tokens)
    held_out = tokenised(task.split_instances()[1], base.chat, config.max_example_tokens)
    if ready is None or not held_out:
        return None
    choosing = ready.examples[:: config.choose_one_of]
    ready.examples = [e for i, e in enumerate(ready.examples) if i % config.choose_one_of]
    return OracleTask(task.task, ready, choosing, held_out)


def _rows(examples: list[Example], budget: int) -> Iterator[list[Example]]:
    """All examples, as many to a row as fit."""
    while examples:
        row = fit_row(examples, budget)
        yield row
        examples = examples[len(row) :]


def _seed(config: OracleConfig, name: str) -> int:
    """Seed of the start of a task's LoRA: the same for all, or its own."""
    if config.start == "shared":
        return config.seed
    return int.from_bytes(hashlib.sha256(f"{config.seed}:{name}".encode()).digest()[:7], "big")
