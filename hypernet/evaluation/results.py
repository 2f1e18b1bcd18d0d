"""Results on disk: one JSON file per task and condition, named after everything that it depends on."""

from __future__ import annotations

import glob
from pathlib import Path
from statistics import fmean
from tempfile import NamedTemporaryFile

from pydantic import ValidationError

from hypernet.config import Record
from hypernet.evaluation.eval_task import Sheet


class Cell(Record):
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
    """Per wording and question, mean negative log-likelihood per token of the gold answer, in nats."""
    answers: list[list[str]]
    """The greedy answers, for people to read; cut short once their score was settled."""

    @classmethod
    def of(
        cls,
        sheet: Sheet,
        *,
        condition: str,
        system: str,
        base: str,
        seed: int,
        answers: list[list[str]],
        nlls: list[list[float]] | None,
    ) -> Cell:
        """Grade the answers of each wording."""
        scores = [[i.grade(a) for i, a in zip(sheet.items, said, strict=True)] for said in answers]
        return cls(
            task=sheet.task,
            condition=condition,
            system=system,
            metric=sheet.metric,
            base=base,
            seed=seed,
            n=len(sheet.items),
            score=fmean(map(fmean, scores)),
            nll=fmean(map(fmean, nlls)) if nlls else None,
            wording_scores=[fmean(s) for s in scores],
            scores=scores,
            nlls=nlls,
            answers=answers,
        )


class CellStore:
    """The cells of one folder.

    A cell's key is a hash of all that decides its numbers; conditions that come to
    the same (a held-out wording that training has seen, say) have the same key and
    share the work. Of a task, condition and system a folder keeps the last content
    only: a checkpoint that was trained anew under its old name replaces its cells.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, task: str, condition: str, system: str, key: str) -> Cell | None:
        """A cell that was made before; None if there is none, or its file is damaged."""
        pattern = f"{glob.escape(task)}.*.{key}.json"
        cell = next(filter(None, map(read_cell, sorted(self.folder.glob(pattern)))), None)
        if cell and (cell.condition, cell.system) != (condition, system):
            cell = cell.model_copy(update={"condition": condition, "system": system})
            self.save(cell, key)
        elif cell:
            self._retire(cell, key)
        return cell

    def save(self, cell: Cell, key: str) -> None:
        """Write a cell whole or not at all."""
        path = self.folder / f"{cell.task}.{cell.condition}.{key}.json"
        with NamedTemporaryFile("w", dir=self.folder, suffix=".part", delete=False) as file:
            file.write(cell.model_dump_json() + "\n")
        Path(file.name).replace(path)
        self._retire(cell, key)

    def _retire(self, cell: Cell, key: str) -> None:
        """Remove cells of other content that this one takes the place of."""
        for path in self.folder.glob(f"{glob.escape(cell.task)}.{cell.condition}.*.json"):
            old = None if path.name.endswith(f".{key}.json") else read_cell(path)
            if old and old.system == cell.system:
                path.unlink()


def read_cell(path: Path) -> Cell | None:
    """A cell file; None if it is damaged."""
    try:
        return Cell.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def read_cells(folder: Path) -> list[Cell]:
    """All whole cells below a folder, by path."""
    return [cell for cells in cells_by_folder(folder).values() for cell in cells]


def cells_by_folder(folder: Path) -> dict[Path, list[Cell]]:
    """The whole cells of a folder and of those below it; each folder is one set of settings."""
    found: dict[Path, list[Cell]] = {}
    for path in sorted(folder.rglob("*.json")):
        if cell := read_cell(path):
            found.setdefault(path.parent, []).append(cell)
    return found
