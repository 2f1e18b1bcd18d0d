"""Evaluates conditions on tasks in this process, in large batches of mixed tasks and adapters.

The unit of work is a row: some samples of one task under one prompt variant and one adapter. Rows
of several tasks, variants and conditions share a batch, each with its own adapter, which keeps a
slow machine busy. A result is stored once its last row is done.
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
"""Attention over a packed row costs its length squared; the shared prefix is saved once per row."""
BATCH_TOKENS = 6144
"""Tokens of a prefill batch: enough to keep the cores busy, few enough for the memory of a laptop.
"""
BATCH_ANSWERS = 96
"""Answers decoded at once."""
PLANNED_BATCHES = 4
"""Batches planned together, so that rows of similar length meet. An interruption loses as many."""
MAX_ANSWER_TOKENS = 48
SLACK_TOKENS = 4
"""Tokens that an answer may be longer than the longest target."""
PROTOCOL = 2
"""Part of every key. Raise it when the same inputs would give other numbers."""


@dataclass
class _Job:
    """A result to be computed, and the conditions that share it because their inputs are equal."""

    key: str
    eval_task: EvalTask
    conditions: list[Condition]
    answers: list[list[str]] = field(default_factory=list)
    nlls: list[list[float]] = field(default_factory=list)
    rows_left: int = 0


@dataclass(frozen=True)
class _Row:
    """Samples of one job that share an adapter and are packed side by side."""

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
    """Computes results with a base model in this process.

    Args:
        base: the base model.
        store: where results are kept.
        seed: recorded in each result.
    """

    def __init__(self, base: FrozenBase, store: ResultStore, seed: int) -> None:
        self.base, self.store, self.seed = base, store, seed

    def run(self, conditions: Sequence[Condition], eval_tasks: Sequence[EvalTask]) -> Iterator[EvalResult]:
        """Every result that the conditions do not skip; stored ones come first."""
        jobs: dict[str, _Job] = {}
        for condition in conditions:
            for eval_task in eval_tasks:
                if condition.skip_reason(eval_task):
                    continue
                key = self.key(condition, eval_task)
                fixed = [condition.fixed_answer(sample) for sample in eval_task.samples]
                if stored := self.store.load(eval_task, condition.name, condition.system, key):
                    yield stored
                elif None not in fixed:
                    yield self._store(condition, eval_task, key, [[text or "" for text in fixed]], None)
                elif key in jobs:
                    jobs[key].conditions.append(condition)
                else:
                    jobs[key] = _Job(key, eval_task, [condition])
        # Jobs that cannot share a batch are kept apart. Tasks with short prompts come first, side
        # by side.
        ordered = sorted(jobs.values(), key=lambda job: (_batch_group(job), _mean_length(job.eval_task)))
        for _, group in groupby(ordered, _batch_group):
            yield from self._run_jobs(list(group))

    def key(self, condition: Condition, eval_task: EvalTask) -> str:
        """Hash of everything that decides a result's numbers."""
        parts = [PROTOCOL, self.base.fingerprint, str(self.base.model.dtype), eval_task.digest]
        parts += [rendered_tokens(eval_task, self.base.chat), condition.identity(eval_task)]
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def _run_jobs(self, jobs: list[_Job]) -> Iterator[EvalResult]:
        """The results of jobs that may share batches."""
        with jobs[0].conditions[0].applied(self.base):
            planned: list[_Row] = []
            for job in jobs:
                planned += self._pack_rows(job)
                if sum(row.length for row in planned) >= PLANNED_BATCHES * BATCH_TOKENS or job is jobs[-1]:
                    for batch in _batches(planned):
                        yield from self._run_batch(batch)
                    planned = []

    def _pack_rows(self, job: _Job) -> list[_Row]:
        """A job's samples under every prompt variant, packed into rows."""
        chat, eval_task = self.base.chat, job.eval_task
        variants = job.conditions[0].variants(eval_task)
        targets = [
            chat.response(s.target) if s.target is not None else [chat.end_of_turn] for s in eval_task.samples
        ]
        limit = answer_token_limit(eval_task, chat)
        rows = []
        for number, variant in enumerate(variants):
            prompts = [
                chat.prompt(variant.user_message(sample), variant.turns, eval_task.answer_prefix)
                for sample in eval_task.samples
            ]
            examples = [Example(p, t) for p, t in zip(prompts, targets, strict=True)]
            for samples, adapter in _group_by_adapter(variant, len(examples)):
                left = samples
                while left:
                    fitting = fit_row([examples[i] for i in left], ROW_TOKENS)
                    taken, left = left[: len(fitting)], left[len(fitting) :]
                    rows.append(_Row(job, number, taken, fitting, adapter, limit))
        job.answers = [[""] * len(eval_task.samples) for _ in variants]
        job.nlls = [[0.0] * len(eval_task.samples) for _ in variants]
        job.rows_left = len(rows)
        return rows

    def _run_batch(self, batch: list[_Row]) -> Iterator[EvalResult]:
        """Run one batch, and yield the results that it completes."""
        adapters = _stack(
            [row.adapter for row in batch if row.adapter], self.base.model.dtype, self.base.device
        )
        limits = [row.limit for row in batch for _ in row.samples]
        samples = [row.job.eval_task.samples[i] for row in batch for i in row.samples]
        answers = answer(
            self.base,
            [row.examples for row in batch],
            adapters,
            limits,
            can_stop=lambda i, tokens: samples[i].can_stop(self.base.chat.text(tokens)),
        )
        outputs = zip(answers.nll, answers.tokens, strict=True)
        for row in batch:
            job = row.job
            for sample in row.samples:
                nll, tokens = next(outputs)
                job.nlls[row.variant][sample] = nll
                job.answers[row.variant][sample] = self.base.chat.text(tokens)
            job.rows_left -= 1
            if not job.rows_left:
                yield from self._finish(job)

    def _finish(self, job: _Job) -> Iterator[EvalResult]:
        """Grade, store and yield the results of a finished job."""
        has_targets = all(sample.target is not None for sample in job.eval_task.samples)
        for condition in job.conditions:
            yield self._store(condition, job.eval_task, job.key, job.answers, job.nlls if has_targets else None)

    def _store(
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
    """Tokens of the first sample behind itself as a solved turn: they identify tokenizer and chat
    template.

    The fingerprint of a base model covers its weights only.
    """
    first = eval_task.samples[0]
    return chat.prompt(first.prompt, [(first.prompt, first.target or first.prompt)], eval_task.answer_prefix)


def answer_token_limit(eval_task: EvalTask, chat: ChatFormat) -> int:
    """Maximum number of tokens of an answer."""
    if eval_task.max_tokens:
        return eval_task.max_tokens
    longest = max(len(chat.response(s.target)) for s in eval_task.samples if s.target is not None)
    return min(longest + SLACK_TOKENS, MAX_ANSWER_TOKENS)


def _group_by_adapter(variant: PromptVariant, n: int) -> list[tuple[list[int], LoraWeights | None]]:
    """The n samples in groups that share an adapter."""
    if not variant.adapters:
        return [(list(range(n)), None)]
    if len(variant.adapters) == 1:
        return [(list(range(n)), variant.adapters[0])]
    return [([i], adapter) for i, adapter in enumerate(variant.adapters)]


def _batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows in batches within the budgets.

    The rows of a batch are similar in length and answer limit.
    """
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
    """One adapter per row, on the model's device. Each distinct adapter is cast once."""
    if not adapters:
        return None
    cast = {id(a): a.to(dtype, device) for a in adapters}
    return LoraBatch.stack([cast[id(a)] for a in adapters])


def _batch_group(job: _Job) -> str:
    """Jobs of one group may share batches."""
    condition = job.conditions[0]
    return f"{condition.name} {condition.system}" if condition.changes_model else ""


def _mean_length(eval_task: EvalTask) -> float:
    return mean(len(sample.prompt) for sample in eval_task.samples)
