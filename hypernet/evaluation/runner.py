"""Runs conditions over sheets: what is not on disk yet goes through the model in large mixed batches.

The unit of work is a row: some questions of one sheet, asked in one way, under one
adapter. Rows of several tasks, wordings and conditions share a batch, each with its
own adapter, so that a slow machine is always fed; a cell is written once its last
row is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from statistics import mean

import torch

from hypernet.evaluation.conditions import Condition, Way
from hypernet.evaluation.decoding import answer
from hypernet.evaluation.eval_task import Sheet
from hypernet.evaluation.results import Cell, CellStore
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
"""An answer may be that much longer than the longest gold one."""
PROTOCOL = 2
"""Part of every cell's key: raise it when the same inputs would give other numbers."""


@dataclass
class _Job:
    """A cell to be made, and all who want it: conditions that come to the same share the work."""

    key: str
    sheet: Sheet
    wanted_by: list[Condition]
    answers: list[list[str]] = field(default_factory=list)
    nlls: list[list[float]] = field(default_factory=list)
    rows_left: int = 0


@dataclass(frozen=True)
class _Row:
    """Questions that share an adapter and lie side by side."""

    job: _Job
    way: int
    items: list[int]
    examples: list[Example]
    adapter: LoraWeights | None
    limit: int

    @property
    def length(self) -> int:
        return row_length(self.examples)


class Runner:
    """Makes cells.

    Args:
        base: the base model.
        store: where cells are kept.
        seed: noted in each cell.
    """

    def __init__(self, base: FrozenBase, store: CellStore, seed: int) -> None:
        self.base, self.store, self.seed = base, store, seed

    def run(self, conditions: Sequence[Condition], sheets: Sequence[Sheet]) -> Iterator[Cell]:
        """Every cell that can be made, those on disk first."""
        jobs: dict[str, _Job] = {}
        for condition in conditions:
            for sheet in sheets:
                if condition.lacks(sheet):
                    continue
                key = self.key(condition, sheet)
                if found := self.store.load(sheet.task, condition.name, condition.system, key):
                    yield found
                elif None not in (said := [condition.says(item) for item in sheet.items]):
                    yield self._keep(condition, sheet, key, [[text or "" for text in said]], None)
                elif key in jobs:
                    jobs[key].wanted_by.append(condition)
                else:
                    jobs[key] = _Job(key, sheet, [condition])
        # What cannot share a batch is kept apart; short questions come first and sit together.
        ordered = sorted(jobs.values(), key=lambda j: (_kind(j), _mean_length(j.sheet)))
        for _, group in groupby(ordered, _kind):
            yield from self._make(list(group))

    def key(self, condition: Condition, sheet: Sheet) -> str:
        """Identity of a cell's content."""
        parts = [PROTOCOL, self.base.fingerprint, str(self.base.model.dtype), sheet.digest]
        parts += [as_read(sheet, self.base.chat), condition.identity(sheet)]
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def _make(self, jobs: list[_Job]) -> Iterator[Cell]:
        """The cells of jobs that may share batches."""
        with jobs[0].wanted_by[0].applied(self.base):
            wave: list[_Row] = []
            for job in jobs:
                wave += self._rows(job)
                if sum(row.length for row in wave) >= WAVE * BATCH_TOKENS or job is jobs[-1]:
                    for batch in _batches(wave):
                        yield from self._measure(batch)
                    wave = []

    def _rows(self, job: _Job) -> list[_Row]:
        """A job's questions in every way, packed."""
        chat, sheet = self.base.chat, job.sheet
        ways = job.wanted_by[0].ways(sheet)
        gold = [chat.response(i.gold) if i.gold is not None else [chat.end_of_turn] for i in sheet.items]
        limit = token_limit(sheet, chat)
        rows = []
        for number, way in enumerate(ways):
            prompts = [chat.prompt(way.question(i), way.turns, sheet.opening) for i in sheet.items]
            examples = [Example(p, g) for p, g in zip(prompts, gold, strict=True)]
            for items, adapter in _shares(way, len(examples)):
                left = items
                while left:
                    fitting = fit_row([examples[i] for i in left], ROW_TOKENS)
                    taken, left = left[: len(fitting)], left[len(fitting) :]
                    rows.append(_Row(job, number, taken, fitting, adapter, limit))
        job.answers = [[""] * len(sheet.items) for _ in ways]
        job.nlls = [[0.0] * len(sheet.items) for _ in ways]
        job.rows_left = len(rows)
        return rows

    def _measure(self, batch: list[_Row]) -> Iterator[Cell]:
        """Run one batch, and give the cells that it completes."""
        adapters = _stack(
            [row.adapter for row in batch if row.adapter], self.base.model.dtype, self.base.device
        )
        limits = [row.limit for row in batch for _ in row.items]
        asked = [row.job.sheet.items[i] for row in batch for i in row.items]
        found = answer(
            self.base,
            [row.examples for row in batch],
            adapters,
            limits,
            settled=lambda i, tokens: asked[i].settled(self.base.chat.text(tokens)),
        )
        results = zip(found.nll, found.tokens, strict=True)
        for row in batch:
            job = row.job
            for item in row.items:
                nll, tokens = next(results)
                job.nlls[row.way][item] = nll
                job.answers[row.way][item] = self.base.chat.text(tokens)
            job.rows_left -= 1
            if not job.rows_left:
                yield from self._finish(job)

    def _finish(self, job: _Job) -> Iterator[Cell]:
        """Grade, write and give the cells of a finished job."""
        has_gold = all(item.gold is not None for item in job.sheet.items)
        for condition in job.wanted_by:
            yield self._keep(condition, job.sheet, job.key, job.answers, job.nlls if has_gold else None)

    def _keep(
        self,
        condition: Condition,
        sheet: Sheet,
        key: str,
        answers: list[list[str]],
        nlls: list[list[float]] | None,
    ) -> Cell:
        cell = Cell.of(
            sheet,
            condition=condition.name,
            system=condition.system,
            base=self.base.name,
            seed=self.seed,
            answers=answers,
            nlls=nlls,
        )
        self.store.save(cell, key)
        return cell


def as_read(sheet: Sheet, chat: ChatFormat) -> list[int]:
    """Tokens of a sheet's first question, after itself as a solved one: what tokenizer and chat template do.

    The base model's fingerprint is that of its weights; a template can change without them.
    """
    first = sheet.items[0]
    return chat.prompt(first.prompt, [(first.prompt, first.gold or first.prompt)], sheet.opening)


def token_limit(sheet: Sheet, chat: ChatFormat) -> int:
    """The most tokens of an answer."""
    longest = (
        max(len(chat.response(i.gold)) for i in sheet.items if i.gold is not None)
        if not sheet.max_tokens
        else 0
    )
    return sheet.max_tokens or min(longest + SLACK_TOKENS, MAX_ANSWER_TOKENS)


def _shares(way: Way, n: int) -> list[tuple[list[int], LoraWeights | None]]:
    """Which questions go under which adapter."""
    if not way.adapters:
        return [(list(range(n)), None)]
    if len(way.adapters) == 1:
        return [(list(range(n)), way.adapters[0])]
    return [([i], adapter) for i, adapter in enumerate(way.adapters)]


def _batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows in batches within the budgets, each of like length and like answers."""
    rows = sorted(rows, key=lambda r: (r.adapter is None, r.limit, r.length))
    batch: list[_Row] = []
    for row in rows:
        grown = [*batch, row]
        if batch and (
            (row.adapter is None) != (batch[0].adapter is None)
            or len(grown) * max(r.length for r in grown) > BATCH_TOKENS
            or sum(len(r.items) for r in grown) > BATCH_ANSWERS
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


def _mean_length(sheet: Sheet) -> float:
    return mean(len(item.prompt) for item in sheet.items)
