"""Tasks as they lie on disk: one JSON object a line, gzipped or not, with descriptions and instances."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class TaskFileError(ValueError):
    """A task file that cannot be read; the message names the line and the field."""


class Instance(BaseModel):
    """One input with its acceptable outputs; training uses the first."""

    model_config = ConfigDict(frozen=True)

    input: str
    output: list[str] = Field(min_length=1)


class Task(BaseModel):
    """One task: what it asks, in several wordings, and examples of it."""

    model_config = ConfigDict(frozen=True)

    task: str
    name: str = ""
    metric: Literal["exact_match", "rougeL"] = "exact_match"
    definition: str = ""
    descriptions: list[str] = Field(default_factory=list)
    eval_descriptions: list[str] = Field(default_factory=list)
    instances: list[Instance] = Field(min_length=1)

    @property
    def wordings(self) -> list[str]:
        """Descriptions to train on; the definition stands in where there are none."""
        return self.descriptions or [self.definition]

    @property
    def held_out_wordings(self) -> list[str]:
        """Three descriptions to evaluate with: the held-out ones, else the first three."""
        return (self.eval_descriptions or self.wordings)[:3]


def load_tasks(path: Path) -> list[Task]:
    """Read a `.jsonl` or `.jsonl.gz` task file.

    Raises:
        TaskFileError: naming line and field.
    """
    tasks = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            task = Task.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise TaskFileError(f"{path}, line {number}: {field}: {first['msg']}") from error
        if not any(wording.strip() for wording in task.wordings):
            raise TaskFileError(f"{path}, line {number}: descriptions and definition are both empty")
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{path} holds no task")
    return tasks


def validation_share(tasks: list[Task], share: float) -> tuple[list[Task], list[Task]]:
    """Split tasks into (train, validation) by a hash of their names: the same on every machine and run."""

    def position(task: Task) -> float:
        return int.from_bytes(hashlib.sha256(task.task.encode()).digest()[:8], "big") / 2**64

    return [t for t in tasks if position(t) >= share], [t for t in tasks if position(t) < share]


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise TaskFileError(f"{path} does not exist: --tasks takes a .jsonl or .jsonl.gz file of tasks")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from (line for line in file if line.strip())
