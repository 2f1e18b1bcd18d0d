"""Evaluation results on disk: one JSON file per task and condition,
named by a hash of all inputs.
"""

from __future__ import annotations

import errno
import glob
import os
import re
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from pydantic import ValidationError

from hypernet.config import Record
from hypernet.data.tasks import DESCRIPTION_ONLY_PREFIXES
from hypernet.errors import T2lError
from hypernet.evaluation.eval_task import EvalTask
from hypernet.files import write_atomically


class EvalResult(Record):
    """One task under one condition. The fields are those of the JSON file."""

    task: str
    condition: str
    system: str
    """The checkpoint or the folder of the LoRA; empty for the base model alone."""
    metric: str
    base: str
    """Name of the base model."""
    seed: int
    n: int
    """Number of samples."""
    score: float
    """Mean of `scores`."""
    nll: float | None
    """Mean of `nlls`."""
    wording_scores: list[float]
    """Mean of `scores` per prompt variant."""
    scores: list[list[float]]
    """Score of each greedy answer, 0..1. [variants, n]."""
    nlls: list[list[float]] | None
    """Mean negative log-likelihood per token of the target, in nats. [variants, n]."""
    answers: list[list[str]]
    """Greedy answers, cut off once their score was decided. [variants, n]."""
    told_only: bool | None = None
    """Whether only the description says what to do. None in older files; see `description_only`."""

    @property
    def description_only(self) -> bool:
        """Whether only the description says what to do.

        Older files lack the field; the task's name decides.
        """
        return self.task.startswith(DESCRIPTION_ONLY_PREFIXES) if self.told_only is None else self.told_only

    @classmethod
    def from_answers(
        cls,
        eval_task: EvalTask,
        *,
        condition: str,
        system: str,
        base: str,
        seed: int,
        answers: list[list[str]],
        nlls: list[list[float]] | None,
    ) -> EvalResult:
        """Grade the answers. `answers` and `nlls` are [variants, n]."""
        scores = [
            [sample.grade(text) for sample, text in zip(eval_task.samples, texts, strict=True)]
            for texts in answers
        ]
        return cls(
            task=eval_task.task,
            condition=condition,
            system=system,
            metric=eval_task.metric,
            base=base,
            seed=seed,
            n=len(eval_task.samples),
            score=fmean(map(fmean, scores)),
            nll=fmean(map(fmean, nlls)) if nlls else None,
            wording_scores=[fmean(s) for s in scores],
            scores=scores,
            nlls=nlls,
            answers=answers,
            told_only=eval_task.description_only,
        )


class NoResultsError(T2lError):
    """A folder without results."""


class ResultStore:
    """The results in one folder.

    The key of a result is a hash of everything that decides its numbers. Conditions with equal
    inputs (e.g. a held-out description that training has seen) have the same key and are computed
    once. Per task, condition and system, the folder keeps the newest result only: a checkpoint that
    was trained again under its old name replaces its results.

    Args:
        folder: created if it is missing.

    Raises:
        OSError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # better now than after minutes of computing
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    def load(self, eval_task: EvalTask, condition: str, system: str, key: str) -> EvalResult | None:
        """A stored result. None: there is none, or its file is damaged."""
        name = _file_name(eval_task.task)
        others = sorted(self.folder.glob(f"{glob.escape(name)}.*.{key}.json"))
        own = self.folder / f"{name}.{condition}.{key}.json"
        candidates = [own, *others] if own in others else others
        stored = next(filter(None, map(read_result, candidates)), None)
        if stored is None:
            return None
        labels = {"condition": condition, "system": system, "told_only": eval_task.description_only}
        result = stored.model_copy(update=labels)
        if result != stored:
            self.save(result, key)
        else:
            self._remove_stale(result, key)
        return result

    def save(self, result: EvalResult, key: str) -> None:
        """Write a result atomically.

        Raises:
            OSError: the file cannot be written.
        """
        path = self.folder / f"{_file_name(result.task)}.{result.condition}.{key}.json"
        write_atomically(path, result.model_dump_json() + "\n")
        self._remove_stale(result, key)

    def _remove_stale(self, result: EvalResult, key: str) -> None:
        """Remove results of the same task, condition and system that have another key."""
        for path in self.folder.glob(f"{glob.escape(_file_name(result.task))}.{result.condition}.*.json"):
            other = None if path.name.endswith(f".{key}.json") else read_result(path)
            if other and other.system == result.system:
                path.unlink()


def _file_name(task: str) -> str:
    """A task's name as part of a file name: a slash, for instance, is quoted."""
    return quote(task, safe=" ()[]{}+,;=@&'!~")


_RESULT_NAME = re.compile(r"\.[0-9a-f]{16}\.json$")


def read_result(path: Path) -> EvalResult | None:
    """A result file; None if it is damaged or holds something else."""
    try:
        return EvalResult.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def read_results(folder: Path) -> list[EvalResult]:
    """All results in a folder and below it, by path."""
    return [result for results in results_by_folder(folder).values() for result in results]


def results_by_folder(folder: Path) -> dict[Path, list[EvalResult]]:
    """Folder -> its results, for a folder and those below it.

    A folder holds one set of settings.
    """
    found: dict[Path, list[EvalResult]] = {}
    for path in sorted(folder.rglob("*.json")):
        if result := read_result(path):
            found.setdefault(path.parent, []).append(result)
    return found


def damaged_results(folder: Path) -> list[Path]:
    """Files in a folder and below it that have the name of a result, but cannot be read as one."""
    return [
        path
        for path in sorted(folder.rglob("*.json"))
        if _RESULT_NAME.search(path.name) and not read_result(path)
    ]
