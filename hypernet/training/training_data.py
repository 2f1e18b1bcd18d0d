"""The tasks of a run: which train, which choose the checkpoint, which are dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypernet.data.tasks import Task, TaskFileError, select_names
from hypernet.packing import ChatFormat, Example
from hypernet.training.config import MultitaskConfig
from hypernet.training.progress import Reporter
from hypernet.training.training_tasks import MIN_EXAMPLES, TrainingTask, tokenised, training_task
from hypernet.training.validation import split_tasks

MAX_TABLE_ROWS = 60
"""A longer table is written to a file only; the dropped tasks are printed."""
TABLE_FILE = "tasks.tsv"

Use = Literal["trains", "validates", "dropped"]


@dataclass(frozen=True, slots=True)
class TaskUse:
    """Use of one task in a run, and its reason."""

    task: str
    use: Use
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The tasks of a run, tokenised."""

    training: list[TrainingTask]
    validation: list[TrainingTask]
    uses: list[TaskUse]
    """Use of every given task, in the given order."""

    def check(self, config: MultitaskConfig) -> None:
        """Refuse to start a run that would fail at its first step or validation.

        Raises:
            TaskFileError: no task is left to train on, or none to validate with.
        """
        dropped = [use for use in self.uses if use.use == "dropped"]
        example = f". Dropped is {dropped[0].task}: {dropped[0].reason}" if dropped else ""
        if not self.training:
            raise TaskFileError(
                f"no task is left to train on: each needs {MIN_EXAMPLES} examples of at most "
                f"{config.max_example_tokens} tokens. Raise max_example_tokens, or give more tasks{example}"
            )
        if not self.validation:
            raise TaskFileError(
                f"no task is left to choose the checkpoint with: validation_share is "
                f"{config.validation_share}. Raise it, or give more tasks{example}"
            )


def training_data(
    tasks: Sequence[Task],
    config: MultitaskConfig,
    chat: ChatFormat,
    *,
    only: str | None = None,
    count: int | None = None,
) -> TrainingData:
    """Choose and tokenise the tasks of a run.

    Args:
        tasks: all given tasks.
        config: names the validation tasks and the longest example.
        chat: the base model's chat format.
        only, count: train on some of the tasks, see `select_names`. Validation tasks stay the same.

    Raises:
        TaskFileError: `only` names no task, or fewer than `count` are left.
    """
    split = split_tasks(list(tasks), config)
    uses = {name: TaskUse(name, "dropped", reason) for name, reason in split.dropped.items()}
    ready: dict[str, TrainingTask] = {}
    for task in (*split.training, *split.validation):
        instances = task.split_instances()[0]
        examples = tokenised(instances, chat, config.max_example_tokens)
        if len(examples) < MIN_EXAMPLES:
            uses[task.task] = TaskUse(task.task, "dropped", _too_few(task, examples, config.max_example_tokens))
        else:
            ready[task.task] = training_task(task, examples)
    named = set(select_names([task.task for task in tasks], only))
    usable = [task.task for task in split.training if task.task in ready and task.task in named]
    chosen = set(select_names(usable, count=count))
    for task in split.training:
        if task.task in ready:
            uses[task.task] = (
                TaskUse(task.task, "trains", _contents(ready[task.task]))
                if task.task in chosen
                else TaskUse(task.task, "dropped", "not chosen by --only or --count")
            )
    for task in split.validation:
        if task.task in ready:
            uses[task.task] = TaskUse(task.task, "validates", _contents(ready[task.task]))
    return TrainingData(
        [ready[task.task] for task in split.training if task.task in chosen],
        [ready[task.task] for task in split.validation if task.task in ready],
        [uses[name] for name in dict.fromkeys(task.task for task in tasks)],
    )


def report_tasks(data: TrainingData, folder: Path, reporter: Reporter) -> None:
    """Print the table of tasks, and write it to `folder/tasks.tsv`."""
    counts = {use: sum(u.use == use for u in data.uses) for use in ("trains", "validates", "dropped")}
    rows = data.uses if len(data.uses) <= MAX_TABLE_ROWS else [u for u in data.uses if u.use == "dropped"]
    shown = rows[:MAX_TABLE_ROWS]
    width = max((len(use.task) for use in shown), default=0)
    for use in shown:
        reporter.line(f"  {use.task:{width}}  {use.use:9}  {use.reason}")
    if len(rows) > len(shown):
        reporter.line(f"  and {len(rows) - len(shown)} more")
    reporter.line(
        f"{len(data.uses)} tasks: {counts['trains']} train, {counts['validates']} validate, "
        f"{counts['dropped']} dropped. Table: {folder / TABLE_FILE}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    lines = [("task", "use", "reason"), *((use.task, use.use, use.reason) for use in data.uses)]
    (folder / TABLE_FILE).write_text("".join("\t".join(line) + "\n" for line in lines))


def _contents(task: TrainingTask) -> str:
    return f"{len(task.examples)} examples, {len(task.paraphrases)} descriptions"


def _too_few(task: Task, examples: Sequence[Example], max_tokens: int) -> str:
    return (
        f"{len(examples)} of its {len(task.instances)} instances can train: {MIN_EXAMPLES} are needed, "
        f"of at most {max_tokens} tokens, and every fifth instance is held out"
    )
