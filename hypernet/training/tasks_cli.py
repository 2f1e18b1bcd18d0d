"""`t2l tasks`: make task files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hypernet.tasks import Task

app = typer.Typer(help="Make task files to train on.", no_args_is_help=True)


Given = Annotated[Path, typer.Option(help="Task file of training tasks, to build from.")]
Unseen = Annotated[Path, typer.Option(help="Task file of evaluation tasks: none of them is built.")]
Out = Annotated[Path, typer.Option(help="Where to write, .jsonl or .jsonl.gz.")]
Instances = Annotated[int, typer.Option(help="Instances to draw per task.")]
Seed = Annotated[int, typer.Option(help="Of the draws.")]


@app.callback()
def tasks() -> None:
    """Make task files to train on."""


@app.command()
def derive(tasks: Given, exclude: Unseen, out: Out, instances: Instances = 200, seed: Seed = 0) -> None:
    """Build families of tasks that share inputs and differ only in what is asked.

    They push a hypernetwork to read: the input no longer gives the task away.

        t2l tasks derive --tasks tasks.train.jsonl.gz --exclude tasks.unseen.jsonl.gz --out derived.jsonl.gz
    """
    from hypernet.training.families import derive as build

    given, unseen = _load(tasks), _load(exclude)
    made = build(given, {task.name for task in unseen}, instances=instances, seed=seed)
    if not made:
        raise typer.BadParameter(f"{tasks} holds no word lists, word pairs or number pairs to build from")
    _write(made, out)


@app.command()
def relate(tasks: Given, exclude: Unseen, out: Out, instances: Instances = 200, seed: Seed = 0) -> None:
    """Build tasks from public word data: inflections, numerals, countries, dates, letters.

    They widen what there is to ask. The data come with the extra `relations` of this package.

        t2l tasks relate --tasks tasks.train.jsonl.gz --exclude tasks.unseen.jsonl.gz --out relations.jsonl.gz
    """
    from hypernet.training.relations import relate as build

    given, unseen = _load(tasks), _load(exclude)
    try:
        made = build(given, unseen, instances=instances, seed=seed)
    except ModuleNotFoundError as error:
        hint = "the word data come with `pip install -e '.[relations]'`, in a clone"
        raise typer.BadParameter(f"{error}: {hint}") from error
    _write(made, out)


def _load(path: Path) -> list[Task]:
    from hypernet.tasks import TaskFileError, load_tasks

    try:
        return load_tasks(path)
    except TaskFileError as error:
        raise typer.BadParameter(str(error)) from error


def _write(made: Sequence[Task], out: Path) -> None:
    from hypernet.tasks import write_lines

    write_lines(out, (task.model_dump_json() for task in made))
    typer.echo(f"{len(made)} tasks: {out}")
