"""Tasks as they lie on disk: one JSON object a line, gzipped or not, with descriptions and instances."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hypernet.config import first_problem
from hypernet.errors import T2lError

HELD_OUT_EVERY = 5


class TaskFileError(T2lError):
    """A task file that cannot be read; the message names the line and the field."""


class Instance(BaseModel):
    """One input with its acceptable outputs; training uses the first."""

    model_config = ConfigDict(frozen=True)

    input: str
    output: list[str] = Field(min_length=1)

    @property
    def pair(self) -> tuple[str, str]:
        """Input and answer up to case: what two tasks may have in common."""
        return self.input.strip().lower(), self.output[0].strip().lower()


class Task(BaseModel):
    """One task: what it asks, in several paraphrases, and examples of it."""

    model_config = ConfigDict(frozen=True)

    task: str
    name: str = ""
    metric: Literal["exact_match", "rougeL"] = "exact_match"
    definition: str = ""
    descriptions: list[str] = Field(default_factory=list)
    eval_descriptions: list[str] = Field(default_factory=list)
    categories: list[str] = Field(default_factory=list)
    instances: list[Instance] = Field(min_length=1)
    kind: str = ""
    """What sort of task it is, e.g. `extraction`."""
    group: str = ""
    """Tasks of one group take the same kind of input, so that only their descriptions tell them apart."""
    derived: bool = False
    """Built from other tasks (`families/`): good to train on, not to validate with."""

    @property
    def paraphrases(self) -> list[str]:
        """Descriptions to train on; the definition stands in where there are none."""
        return self.descriptions or [self.definition]

    @property
    def held_out_paraphrases(self) -> list[str]:
        """Three descriptions to evaluate with: the held-out ones, else the first three."""
        return (self.eval_descriptions or self.paraphrases)[:3]

    def split_instances(self) -> tuple[list[Instance], list[Instance]]:
        """(training, held out): every fifth input is held out, as files are often sorted.

        An input that occurs twice falls on one side.
        """
        inputs = dict.fromkeys(instance.input for instance in self.instances)
        held_out = set(list(inputs)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
        return (
            [i for i in self.instances if i.input not in held_out],
            [i for i in self.instances if i.input in held_out],
        )


class _Descriptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    descriptions: list[str] = Field(min_length=1)


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
            raise TaskFileError(f"{path}, line {number}: {first_problem(error, 'the line')}") from error
        if not any(paraphrase.strip() for paraphrase in task.paraphrases):
            raise TaskFileError(f"{path}, line {number}: descriptions and definition are both empty")
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{path} holds no task")
    return tasks


def load_descriptions(path: Path) -> dict[str, list[str]]:
    """Read further descriptions of tasks: one `{"task": name, "descriptions": [...]}` a line.

    Raises:
        TaskFileError: naming line and field.
    """
    found: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            entry = _Descriptions.model_validate_json(line)
        except ValidationError as error:
            raise TaskFileError(f"{path}, line {number}: {first_problem(error, 'the line')}") from error
        found.setdefault(entry.task, []).extend(entry.descriptions)
    return found


def with_descriptions(tasks: Iterable[Task], more: Mapping[str, Sequence[str]]) -> list[Task]:
    """The tasks with further descriptions behind their own.

    A task that had its definition alone keeps it as its first description, so that what it is validated
    with stays the same.

    Raises:
        TaskFileError: none of the descriptions is for one of the tasks.
    """
    given = list(tasks)
    if more and not any(task.task in more for task in given):
        raise TaskFileError("no task has the name of one that the further descriptions are for")
    return [
        task.model_copy(update={"descriptions": list(dict.fromkeys([*task.paraphrases, *more[task.task]]))})
        if task.task in more
        else task
        for task in given
    ]


def open_text(path: Path, mode: Literal["rt", "wt"] = "rt") -> IO[str]:
    """A text file, gzipped where its name ends in .gz."""
    return (
        gzip.open(path, mode, encoding="utf-8") if path.suffix == ".gz" else path.open(mode, encoding="utf-8")
    )


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a `.jsonl` or `.jsonl.gz` file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_text(path, "wt") as file:
        file.writelines(f"{line}\n" for line in lines)


def training_pairs(tasks: Iterable[Task]) -> set[tuple[str, str]]:
    """Every pair of input and answer that training on these tasks shows, as `Instance.pair`.

    Public tasks overlap: "France" -> "Paris" may be held out of one and trained on in another.
    """
    return {instance.pair for task in tasks for instance in task.split_instances()[0]}


def without_trained_paraphrases(task: Task, trained: Iterable[Task]) -> Task | None:
    """The task without descriptions that are some training task's, word for word; None if it has no others."""
    read = {text for other in trained for text in (*other.paraphrases, other.definition)}
    kept = {
        field: [text for text in getattr(task, field) if text not in read]
        for field in ("descriptions", "eval_descriptions")
    }
    definition = "" if task.definition in read else task.definition
    left = task.model_copy(update={**kept, "definition": definition})
    return left if any(left.paraphrases) else None


def split_validation(tasks: list[Task], share: float) -> tuple[list[Task], list[Task]]:
    """Split tasks into (train, validation) by a hash of their names: the same on every machine and run.

    The tasks of a group stay together, by a hash of the group's name. One task at least validates, if there
    is another to train on. Derived tasks never do: a sibling in training would make that too easy. Nor do
    they train if they are a validation task built anew.
    """
    given = [task for task in tasks if not task.derived]
    validation = [task for task in given if _position(task.group or task.task) < share]
    if not validation and len(given) > 1:
        validation = [min(given, key=lambda task: _position(task.task))]
    chosen = {task.task for task in validation}
    built_anew = {task.name for task in validation if task.name}
    return [t for t in tasks if t.task not in chosen and not (t.derived and t.name in built_anew)], validation


def select_names(names: list[str], only: str | None = None, count: int | None = None) -> list[str]:
    """Some of the tasks: those that `only` names, or `count` of them, or all.

    In `only` commas part the names, and `fv_*` stands for all that begin so.
    A count is filled in the order of a hash of the names: the same on every machine, mixed over
    sources, and a smaller choice is part of every larger one.

    Raises:
        TaskFileError: `only` has a name that no task has, or there are fewer than `count`.
    """
    named = [part.strip() for part in (only or "").split(",") if part.strip()]
    if unknown := [part for part in named if not any(_is_called(name, part) for name in names)]:
        raise TaskFileError(f"no task is called {', '.join(unknown)}")
    chosen = [name for name in names if not named or any(_is_called(name, part) for part in named)]
    if count is None:
        return chosen
    if count > len(chosen):
        raise TaskFileError(f"{count} tasks are asked for, there are {len(chosen)}")
    return sorted(chosen, key=_position)[:count]


def _is_called(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _position(name: str) -> float:
    """A fixed place in [0, 1) for a task's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise TaskFileError(f"{path} does not exist: --tasks takes a .jsonl or .jsonl.gz file of tasks")
    with open_text(path) as file:
        yield from (line for line in file if line.strip())
