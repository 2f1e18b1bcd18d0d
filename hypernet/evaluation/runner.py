"""Runs conditions over eval_tasks: what is not on disk yet goes through the model in large mixed batches.

The unit of work is a row: some questions of one eval_task, asked in one variant, under one
adapter. Rows of several tasks, wordings and conditions share a batch, each with its
own adapter, so that a slow machine is always fed; a result is written once its last
row is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from statistics import mean

import torch

from hypernet.evaluation.conditions import Condition, PromptVariant
from hypernet.evaluation.decoding import answer
from hypernet.evaluation.eval_task import EvalTask
from hypernet.evaluation.results import EvalResult, ResultStore
from hypernet.frozen import FrozenBase
from hypernet.lora import LoraBatch, LoraWeights
from hypernet.packing import ChatFormat, Example, fit_row, row_length

ROW_TOKENS = 256
"""Attention over a packed row costs its square; the shared prefix is saved once per row."""
BATCH_TOKENS = 6144
"""Tokens read at once: enough to keep the cores busy, few enough for the memory of a laptop."""
BATCH_ANSWERS = 96
"""Answers written at once."""
WAVE = 4
"""Batches planned together, so that rows of like length meet; also how much an interruption loses."""
MAX_ANSWER_TOKENS = 48
SLACK_TOKENS = 4
"""An answer may be that much longer than the longest target one."""
PROTOCOL = 2
"""Part of every result's key: raise it when the same inputs would give other numbers."""


@dataclass
class _Job:
    """A result to be made, and all who want it: conditions that come to the same share the work."""

    key: str
    eval_task: EvalTask
    wanted_by: list[Condition]
    answers: list[list[str]] = field(default_factory=list)
    nlls: list[list[float]] = field(default_factory=list)
    rows_left: int = 0


@dataclass(frozen=True)
class _Row:
    """Questions that share an adapter and lie side by side."""

    job: _Job
    variant: int
    samples: list[int]
    examples: list[Example]
    adapter: LoraWeights | None
    limit: int

    @property
    def length(self) -> int:
        return row_length(self.examples)


class Runner:
    """Makes results.

    Args:
        base: the base model.
        store: where results are kept.
        seed: noted in each result.
    """

    def __init__(self, base: FrozenBase, store: ResultStore, seed: int) -> None:
        self.base, self.store, self.seed = base, store, seed

    def run(self, conditions: Sequence[Condition], eval_tasks: Sequence[EvalTask]) -> Iterator[EvalResult]:
        """Every result that can be made, those on disk first."""
        jobs: dict[str, _Job] = {}
        for condition in conditions:
            for eval_task in eval_tasks:
                if condition.skip_reason(eval_task):
                    continue
                key = self.key(condition, eval_task)
                if found := self.store.load(eval_task.task, condition.name, condition.system, key):
                    yield found
                elif None not in (said := [condition.fixed_answer(sample) for sample in eval_task.samples]):
                    yield self._keep(condition, eval_task, key, [[text or "" for text in said]], None)
                elif key in jobs:
                    jobs[key].wanted_by.append(condition)
                else:
                    jobs[key] = _Job(key, eval_task, [condition])
        # What cannot share a batch is kept apart; short questions come first and sit together.
        ordered = sorted(jobs.values(), key=lambda j: (_kind(j), _mean_length(j.eval_task)))
        for _, group in groupby(ordered, _kind):
            yield from self._make(list(group))

    def key(self, condition: Condition, eval_task: EvalTask) -> str:
        """Identity of a result's content."""
        parts = [PROTOCOL, self.base.fingerprint, str(self.base.model.dtype), eval_task.digest]
        parts += [rendered_tokens(eval_task, self.base.chat), condition.identity(eval_task)]
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def _make(self, jobs: list[_Job]) -> Iterator[EvalResult]:
        """The results of jobs that may share batches."""
        with jobs[0].wanted_by[0].applied(self.base):
            wave: list[_Row] = []
            for job in jobs:
                wave += self._rows(job)
                if sum(row.length for row in wave) >= WAVE * BATCH_TOKENS or job is jobs[-1]:
                    for batch in _batches(wave):
                        yield from self._measure(batch)
                    wave = []

    def _rows(self, job: _Job) -> list[_Row]:
        """A job's questions in every variant, packed."""
        chat, eval_task = self.base.chat, job.eval_task
        variants = job.wanted_by[0].variants(eval_task)
        target = [
            chat.response(i.target) if i.target is not None else [chat.end_of_turn] for i in eval_task.samples
        ]
        limit = answer_token_limit(eval_task, chat)
        rows = []
        for number, variant in enumerate(variants):
            prompts = [
                chat.prompt(variant.question(i), variant.turns, eval_task.answer_prefix)
                for i in eval_task.samples
            ]
            examples = [Example(p, g) for p, g in zip(prompts, target, strict=True)]
            for samples, adapter in _shares(variant, len(examples)):
                left = samples
                while left:
                    fitting = fit_row([examples[i] for i in left], ROW_TOKENS)
                    taken, left = left[: len(fitting)], left[len(fitting) :]
                    rows.append(_Row(job, number, taken, fitting, adapter, limit))
        job.answers = [[""] * len(eval_task.samples) for _ in variants]
        job.nlls = [[0.0] * len(eval_task.samples) for _ in variants]
        job.rows_left = len(rows)
        return rows

    def _measure(self, batch: list[_Row]) -> Iterator[EvalResult]:
        """Run one batch, and give the results that it completes."""
        adapters = _stack(
            [row.adapter for row in batch if row.adapter], self.base.model.dtype, self.base.device
        )
        limits = [row.limit for row in batch for _ in row.samples]
        asked = [row.job.eval_task.samples[i] for row in batch for i in row.samples]
        found = answer(
            self.base,
            [row.examples for row in batch],
            adapters,
            limits,
            can_stop=lambda i, tokens: asked[i].can_stop(self.base.chat.text(tokens)),
        )
        results = zip(found.nll, found.tokens, strict=True)
        for row in batch:
            job = row.job
            for sample in row.samples:
                nll, tokens = next(results)
                job.nlls[row.variant][sample] = nll
                job.answers[row.variant][sample] = self.base.chat.text(tokens)
            job.rows_left -= 1
            if not job.rows_left:
                yield from self._finish(job)

    def _finish(self, job: _Job) -> Iterator[EvalResult]:
        """Grade, write and give the results of a finished job."""
        has_targets = all(sample.target is not None for sample in job.eval_task.samples)
        for condition in job.wanted_by:
            yield self._keep(condition, job.eval_task, job.key, job.answers, job.nlls if has_targets else None)

    def _keep(
        self,
        condition: Condition,
        eval_task: EvalTask,
        key: str,
        answers: list[list[str]],
        nlls: list[list[float]] | None,
    ) -> EvalResult:
        result = EvalResult.from_answers(
            eval_task,
            condition=condition.name,
            system=condition.system,
            base=self.base.name,
            seed=self.seed,
            answers=answers,
            nlls=nlls,
        )
        self.store.save(result, key)
        return result


def rendered_tokens(eval_task: EvalTask, chat: ChatFormat) -> list[int]:
    """Tokens of the first sample, rendered behind itself as a solved turn.

    The base model's fingerprint is that of its weights; a template can change without them.
    """
    first = eval_task.samples[0]
    return chat.prompt(first.prompt, [(first.prompt, first.target or first.prompt)], eval_task.answer_prefix)


def answer_token_limit(eval_task: EvalTask, chat: ChatFormat) -> int:
    """The most tokens of an answer."""
    longest = (
        max(len(chat.response(i.target)) for i in eval_task.samples if i.target is not None)
        if not eval_task.max_tokens
        else 0
    )
    return eval_task.max_tokens or min(longest + SLACK_TOKENS, MAX_ANSWER_TOKENS)


def _shares(variant: PromptVariant, n: int) -> list[tuple[list[int], LoraWeights | None]]:
    """Which questions go under which adapter."""
    if not variant.adapters:
        return [(list(range(n)), None)]
    if len(variant.adapters) == 1:
        return [(list(range(n)), variant.adapters[0])]
    return [([i], adapter) for i, adapter in enumerate(variant.adapters)]


def _batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows in batches within the budgets, each of like length and like answers."""
    rows = sorted(rows, key=lambda r: (r.adapter is None, r.limit, r.length))
    batch: list[_Row] = []
    for row in rows:
        grown = [*batch, row]
        if batch and (
            (row.adapter is None) != (batch[0].adapter is None)
            or len(grown) * max(r.length for r in grown) > BATCH_TOKENS
            or sum(len(r.samples) for r in grown) > BATCH_ANSWERS
        ):
            yield batch
            grown = [row]
        batch = grown
    if batch:
        yield batch


def _stack(adapters: list[LoraWeights], dtype: torch.dtype, device: str) -> LoraBatch | None:
    """One adapter per row; each distinct one is cast once. Those from disk come from the CPU."""
    if not adapters:
        return None
    cast = {id(a): a.to(dtype, device) for a in adapters}
    return LoraBatch.stack([cast[id(a)] for a in adapters])


def _kind(job: _Job) -> str:
    condition = job.wanted_by[0]
    return f"{condition.name} {condition.system}" if condition.changes_model else ""


def _mean_length(eval_task: EvalTask) -> float:
    return mean(len(sample.prompt) for sample in eval_task.samples)
