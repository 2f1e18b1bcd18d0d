"""Task files: one JSON object a line, gzipped or not, with descriptions and instances of a task."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hypernet.config import first_problem
from hypernet.errors import T2lError

HELD_OUT_EVERY = 5
DESCRIPTION_ONLY_PREFIXES = ("fv_", "ii_")


class TaskFileError(T2lError):
    """A task file that cannot be read. The message names the line and the field."""


class Instance(BaseModel):
    """One input with its acceptable outputs. Training uses the first output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    output: list[str] = Field(min_length=1)

    @property
    def pair(self) -> tuple[str, str]:
        """(input, answer) without case: what two tasks may have in common."""
        return self.input.strip().lower(), self.output[0].strip().lower()


class Task(BaseModel):
    """One task: several descriptions of what it asks, and instances of it.

    One line of a task file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    """Unique name. Whether a task trains or validates depends on it alone."""
    name: str = ""
    """Name at the source of the data, if another."""
    metric: Literal["exact_match", "rougeL"] = "exact_match"
    definition: str = ""
    """A long description. Training reads it beside `descriptions`."""
    descriptions: list[str] = Field(default_factory=list)
    """Short descriptions to train on, each a paraphrase of the others."""
    eval_descriptions: list[str] = Field(default_factory=list)
    """Descriptions that training never reads."""
    instances: list[Instance] = Field(min_length=1)

    categories: list[str] = Field(default_factory=list)
    kind: str = ""
    """What sort of task it is, e.g. `extraction`."""
    group: str = ""
    """Tasks of one group take the same kind of input,
    so that only their descriptions tell them apart.
    """
    kin: list[str] = Field(default_factory=list)
    """Of an evaluation task: names of the nearest training tasks."""
    told_only: bool | None = None
    """Whether only the description says what to do.

    None: the name tells, see `description_only`.
    """
    derived: bool = False
    """Built from other tasks (`synthetic/`) or word data (`lexical/`): trains, but never validates.
    """

    split: str = ""
    """Which file of its data set the task is from, e.g. `train`."""
    source: str = ""
    """Data set, repository or book that the task is from."""
    licence: list[str] | str = Field(default_factory=list)

    @property
    def paraphrases(self) -> list[str]:
        """Descriptions to train on; the definition where there are none."""
        return self.descriptions or [self.definition]

    @property
    def held_out_paraphrases(self) -> list[str]:
        """Three descriptions to evaluate with: `eval_descriptions`, or the first three others."""
        return (self.eval_descriptions or self.paraphrases)[:3]

    @property
    def description_only(self) -> bool:
        """Whether an input alone does not say what to do, so that the answer depends on the
        description.

        `told_only` says so. In files without that field the prefix of the name does:
        function-vectors and instruction-induction are made of such tasks.
        """
        return self.task.startswith(DESCRIPTION_ONLY_PREFIXES) if self.told_only is None else self.told_only

    def split_instances(self) -> tuple[list[Instance], list[Instance]]:
        """(training, held out): every fifth input is held out, as files are often sorted.

        An input that occurs twice is on one side only.
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
            raise TaskFileError(f"{path}, line {number}: {_problem(error)}") from error
        if not any(paraphrase.strip() for paraphrase in task.paraphrases):
            raise TaskFileError(f"{path}, line {number}: descriptions and definition are both empty")
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{path} holds no task")
    return tasks


def load_all(paths: Iterable[Path]) -> list[Task]:
    """The tasks of several files, in their order.

    Raises:
        TaskFileError: naming file, line and field.
    """
    return [task for path in paths for task in load_tasks(path)]


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
    """The tasks with further descriptions after their own.

    A task whose only description is its definition keeps it as the first one. Validation reads the
    first description, so it stays the same.

    Raises:
        TaskFileError: none of the descriptions is for one of the tasks.
    """
    given = list(tasks)
    if more and not any(task.task in more for task in given):
        raise TaskFileError(
            "the further descriptions are for other tasks: none of their names is in the task files"
        )
    return [
        task.model_copy(update={"descriptions": list(dict.fromkeys([*task.paraphrases, *more[task.task]]))})
        if task.task in more
        else task
        for task in given
    ]


def open_text(path: Path, mode: Literal["rt", "wt"] = "rt") -> IO[str]:
    """Open a text file, gzipped if its name ends in .gz."""
    return (
        gzip.open(path, mode, encoding="utf-8") if path.suffix == ".gz" else path.open(mode, encoding="utf-8")
    )


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a `.jsonl` or `.jsonl.gz` file, and its folder if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_text(path, "wt") as file:
        file.writelines(f"{line}\n" for line in lines)


def training_pairs(tasks: Iterable[Task]) -> set[tuple[str, str]]:
    """Every (input, answer) that training on these tasks shows, as `Instance.pair`.

    Public tasks overlap: "France" -> "Paris" may be held out of one task and train in another.
    """
    return {instance.pair for task in tasks for instance in task.split_instances()[0]}


def without_trained_paraphrases(task: Task, trained: Iterable[Task]) -> Task | None:
    """The task without descriptions that a training task has too, word for word.

    None if it has no others.
    """
    read = {text for other in trained for text in (*other.paraphrases, other.definition)}
    kept = {
        field: [text for text in getattr(task, field) if text not in read]
        for field in ("descriptions", "eval_descriptions")
    }
    definition = "" if task.definition in read else task.definition
    left = task.model_copy(update={**kept, "definition": definition})
    return left if any(left.paraphrases) else None


def split_validation(tasks: list[Task], share: float) -> tuple[list[Task], list[Task]]:
    """Split tasks into (training, validation) by a hash of their names: the same on every machine
    and run.

    The tasks of a group stay together, by a hash of the group's name. At least one task validates,
    if there is another to train on. Derived tasks never validate: similar ones in training would
    make that too easy. A derived task that repeats a validation task is in neither list.
    """
    given = [task for task in tasks if not task.derived]
    validation = [task for task in given if _position(task.group or task.task) < share]
    if not validation and len(given) > 1:
        validation = [min(given, key=lambda task: _position(task.task))]
    chosen = {task.task for task in validation}
    built_anew = {task.name for task in validation if task.name}
    return [t for t in tasks if t.task not in chosen and not (t.derived and t.name in built_anew)], validation


def select_names(names: list[str], only: str | None = None, count: int | None = None) -> list[str]:
    """Some of the tasks: those that `only` names, `count` of them, or all.

    Commas separate the names in `only`, and `fv_*` stands for all names that begin with `fv_`. A
    count takes the first tasks in the order of a hash of the names: the same on every machine,
    mixed over sources, and a smaller choice is part of every larger one.

    Raises:
        TaskFileError: `only` has a name that no task has, or there are fewer than `count`.
    """
    named = [part.strip() for part in (only or "").split(",") if part.strip()]
    if unknown := [part for part in named if not any(_is_called(name, part) for name in names)]:
        raise TaskFileError(f"--only: no task is called {', '.join(unknown)}")
    chosen = [name for name in names if not named or any(_is_called(name, part) for part in named)]
    if count is None:
        return chosen
    if count > len(chosen):
        raise TaskFileError(f"--count asks for {count} tasks, but there are {len(chosen)}")
    return sorted(chosen, key=_position)[:count]


def _is_called(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _position(name: str) -> float:
    """A fixed number in [0, 1) for a task's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _problem(error: ValidationError) -> str:
    """The first fault of a line.

    An unknown field is answered with the nearest field of the format.
    """
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return first_problem(error, "the line")
    *parents, wrong = map(str, first["loc"])
    known = [*(Instance if parents else Task).model_fields]
    near = get_close_matches(wrong, known, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"{'an instance' if parents else 'a task'} may have {', '.join(known)}"
    )
    return f"{'.'.join([*parents, wrong])}: unknown field; {hint}"


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise TaskFileError(f"{path} does not exist: --tasks takes a .jsonl or .jsonl.gz file of tasks")
    try:
        with open_text(path) as file:
            yield from (line for line in file if line.strip())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TaskFileError(f"{path} cannot be read: {error}") from error
