"""Results on disk: one JSON file per task and condition, named after everything that it depends on."""

from __future__ import annotations

import glob
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from hypernet.config import Record
from hypernet.evaluation.eval_task import EvalTask
from hypernet.files import write_atomically


class EvalResult(Record):
    """One task under one condition."""

    task: str
    condition: str
    system: str
    """What made the adapter: a checkpoint, a LoRA's folder; empty for the base model alone."""
    metric: str
    base: str
    """Name of the base model."""
    seed: int
    n: int
    """Questions asked."""
    score: float
    """Mean of `scores`."""
    nll: float | None
    """Mean of `nlls`."""
    wording_scores: list[float]
    """Mean of `scores` per wording."""
    scores: list[list[float]]
    """Of each wording's greedy answers, 0..1."""
    nlls: list[list[float]] | None
    """Per wording and question, mean negative log-likelihood per token of the target answer, in nats."""
    answers: list[list[str]]
    """The greedy answers, for people to read; cut short once their score was can_stop."""

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
        """Grade the answers of each wording."""
        scores = [[i.grade(a) for i, a in zip(eval_task.samples, said, strict=True)] for said in answers]
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
        )


class ResultStore:
    """The results of one folder.

    A result's key is a hash of all that decides its numbers; conditions that come to
    the same (a held-out wording that training has seen, say) have the same key and
    share the work. Of a task, condition and system a folder keeps the last content
    only: a checkpoint that was trained anew under its old name replaces its results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, task: str, condition: str, system: str, key: str) -> EvalResult | None:
        """A result that was made before; None if there is none, or its file is damaged."""
        pattern = f"{glob.escape(task)}.*.{key}.json"
        result = next(filter(None, map(read_result, sorted(self.folder.glob(pattern)))), None)
        if result and (result.condition, result.system) != (condition, system):
            result = result.model_copy(update={"condition": condition, "system": system})
            self.save(result, key)
        elif result:
            self._retire(result, key)
        return result

    def save(self, result: EvalResult, key: str) -> None:
        """Write a result whole or not at all."""
        path = self.folder / f"{result.task}.{result.condition}.{key}.json"
        write_atomically(path, result.model_dump_json() + "\n")
        self._retire(result, key)

    def _retire(self, result: EvalResult, key: str) -> None:
        """Remove results of other content that this one takes the place of."""
        for path in self.folder.glob(f"{glob.escape(result.task)}.{result.condition}.*.json"):
            old = None if path.name.endswith(f".{key}.json") else read_result(path)
            if old and old.system == result.system:
                path.unlink()


def read_result(path: Path) -> EvalResult | None:
    """A result file; None if it is damaged."""
    try:
        return EvalResult.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def read_results(folder: Path) -> list[EvalResult]:
    """All whole results below a folder, by path."""
    return [result for results in results_by_folder(folder).values() for result in results]


def results_by_folder(folder: Path) -> dict[Path, list[EvalResult]]:
    """The whole results of a folder and of those below it; each folder is one set of settings."""
    found: dict[Path, list[EvalResult]] = {}
    for path in sorted(folder.rglob("*.json")):
        if result := read_result(path):
            found.setdefault(path.parent, []).append(result)
    return found
