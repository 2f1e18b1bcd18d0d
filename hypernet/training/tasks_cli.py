"""`t2l tasks`: make task files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make task files to train on.", no_args_is_help=True)


@app.callback()
def tasks() -> None:
    """Make task files to train on."""


@app.command()
def derive(
    tasks: Annotated[Path, typer.Option(help="Task file of training tasks, to build from.")],
    exclude: Annotated[Path, typer.Option(help="Task file of evaluation tasks: none of them is built.")],
    out: Annotated[Path, typer.Option(help="Where to write, .jsonl.gz.")],
    instances: Annotated[int, typer.Option(help="Instances to draw per task.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Build families of tasks that share inputs and differ only in what is asked.

    They push a hypernetwork to read: the input no longer gives the task away.

        t2l tasks derive --tasks tasks.train.jsonl.gz --exclude tasks.unseen.jsonl.gz --out derived.jsonl.gz
    """
    from hypernet.training.data import TaskFileError, load_tasks
    from hypernet.training.families import derive as build

    try:
        given = load_tasks(tasks)
        taken = {task.name for task in load_tasks(exclude)}
    except TaskFileError as error:
        raise typer.BadParameter(str(error)) from error
    made = build(given, taken, instances=instances, seed=seed)
    if not made:
        raise typer.BadParameter(f"{tasks} holds no word lists, word pairs or number pairs to build from")
    out.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(out, "wt") as file:
        file.writelines(f"{task.model_dump_json()}\n" for task in made)
    typer.echo(f"{len(made)} tasks: {out}")
