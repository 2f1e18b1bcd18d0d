"""`t2l tasks`: make task files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hypernet.data.tasks import Task

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
    from hypernet.data.synthetic import derive as build

    given, unseen = _load(tasks), _load(exclude)
    made = build(given, {task.name for task in unseen}, instances=instances, seed=seed)
    if not made:
        raise typer.BadParameter(f"{tasks} holds no word lists, word pairs or number pairs to build from")
    _write(made, out)


@app.command()
def relate(tasks: Given, exclude: Unseen, out: Out, instances: Instances = 200, seed: Seed = 0) -> None:
    """Build tasks from public word data: inflections, numerals, countries, dates, letters.

    They widen what there is to ask. The data come with the extra `lexical` of this package.

        t2l tasks relate --tasks tasks.train.jsonl.gz --exclude tasks.unseen.jsonl.gz --out lexical.jsonl.gz
    """
    from hypernet.data.lexical import relate as build

    given, unseen = _load(tasks), _load(exclude)
    try:
        made = build(given, unseen, instances=instances, seed=seed)
    except ModuleNotFoundError as error:
        hint = "the word data come with `pip install -e '.[lexical]'`, in a clone"
        raise typer.BadParameter(f"{error}: {hint}") from error
    _write(made, out)


@app.command()
def from_hub(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Lots-of-LoRAs/task..., one or more.")],
    out: Annotated[Path, typer.Option(help="Task file to write, .jsonl or .jsonl.gz.")],
    split: Annotated[str, typer.Option(help="Split of the datasets.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Instances per task, the first ones; default: all.")] = None,
) -> None:
    """Make a task file of Lots-of-LoRAs datasets on the Hugging Face hub.

    Their definition is each task's only description; write more into `descriptions`
    if you have them. Needs the datasets package.

        t2l tasks from-hub Lots-of-LoRAs/task1146_country_capital --out capitals.jsonl.gz
    """
    from hypernet.data.hub import HubError, download, natural_instruction
    from hypernet.data.tasks import write_lines

    try:
        tasks = [natural_instruction(name, download(name, None, split)[:limit]) for name in names]
    except HubError as error:
        raise typer.BadParameter(str(error)) from error
    write_lines(out, (task.model_dump_json() for task in tasks))
    typer.echo(f"{len(tasks)} tasks: {out}")


@app.command()
def benchmark(
    name: Annotated[
        str, typer.Argument(help="arc_challenge, arc_easy, boolq, gsm8k, hellaswag, openbookqa, ...")
    ],
    out: Annotated[Path, typer.Option(help="Benchmark file to write, .jsonl or .jsonl.gz.")],
    split: Annotated[str | None, typer.Option(help="Default: the one evaluated on.")] = None,
) -> None:
    """Make a benchmark file of one of the ten benchmarks on the Hugging Face hub. Needs the datasets package.

    t2l tasks benchmark gsm8k --out benchmarks/gsm8k.jsonl
    """
    from hypernet.data.hub import BENCHMARKS, HubError, benchmark_rows, download
    from hypernet.data.tasks import write_lines

    source = BENCHMARKS.get(name)
    if source is None:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(BENCHMARKS)}")
    try:
        rows = benchmark_rows(name, download(source.name, source.subset, split or source.split), split)
    except HubError as error:
        raise typer.BadParameter(str(error)) from error
    write_lines(out, map(json.dumps, rows))
    typer.echo(f"{len(rows)} rows: {out}")


def _load(path: Path) -> list[Task]:
    from hypernet.data.tasks import TaskFileError, load_tasks

    try:
        return load_tasks(path)
    except TaskFileError as error:
        raise typer.BadParameter(str(error)) from error


def _write(made: Sequence[Task], out: Path) -> None:
    from hypernet.data.tasks import write_lines

    write_lines(out, (task.model_dump_json() for task in made))
    typer.echo(f"{len(made)} tasks: {out}")
