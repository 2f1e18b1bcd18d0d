"""`t2l tasks`: make task files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypernet.cli_options import OutFile, Seed, TaskFile
from hypernet.cli_support import user_errors

if TYPE_CHECKING:
    from hypernet.data.tasks import Task

app = typer.Typer(help="Make task files to train on.", no_args_is_help=True)

Exclude = Annotated[
    list[Path],
    typer.Option(
        "--exclude",
        metavar="FILE",
        help="Task file of evaluation tasks. No task that answers their questions is built. May be repeated.",
    ),
]
Instances = Annotated[int, typer.Option("--instances", min=1, help="Instances to draw per task.")]
Split = Annotated[str, typer.Option("--split", help="Split of the data sets.")]


@app.callback()
def tasks() -> None:
    """Make task files to train on."""


@app.command()
@user_errors()
def derive(tasks: TaskFile, exclude: Exclude, out: OutFile, instances: Instances = 200, seed: Seed = 0) -> None:
    """Build synthetic tasks that share their inputs and differ only in what is
    asked.

    The input no longer tells which task it belongs to, so a hypernetwork has to
    read the description. Words, word pairs and number pairs come from the
    training instances of --tasks.

        t2l tasks derive --tasks train.jsonl.gz --exclude unseen.jsonl.gz --out derived.jsonl.gz
    """
    from hypernet.data.synthetic import derive as build
    from hypernet.data.tasks import TaskFileError, load_all

    made = build(load_all([tasks]), load_all(exclude), instances=instances, seed=seed)
    if not made:
        raise TaskFileError(f"{tasks} holds no word lists, word pairs or number pairs to build from")
    _write(made, out)


@app.command()
@user_errors()
def relate(tasks: TaskFile, exclude: Exclude, out: OutFile, instances: Instances = 200, seed: Seed = 0) -> None:
    """Build tasks from public word data: inflections, numerals, places, dates.

    The word data come with the extra `lexical` of this package.

        t2l tasks relate --tasks train.jsonl.gz --exclude unseen.jsonl.gz --out lexical.jsonl.gz
    """
    from hypernet.data.lexical import relate as build
    from hypernet.data.tasks import TaskFileError, load_all

    try:
        made = build(load_all([tasks]), load_all(exclude), instances=instances, seed=seed)
    except ModuleNotFoundError as error:
        raise TaskFileError(f"{error}: install the word data with `pip install -e '.[lexical]'`") from error
    _write(made, out)


@app.command()
@user_errors()
def from_hub(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Lots-of-LoRAs/task..., one or several.")
    ],
    out: OutFile,
    split: Split = "train",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Maximum number of instances per task.", show_default="all"),
    ] = None,
) -> None:
    """Make a task file from Lots-of-LoRAs datasets on the Hugging Face hub.

    The definition is the only description of each task. Add more to
    `descriptions` where you have them. Needs the datasets package (extra `hub`).

        t2l tasks from-hub Lots-of-LoRAs/task1146_country_capital --out capitals.jsonl.gz
    """
    from hypernet.data.hub import download, natural_instruction

    _write([natural_instruction(name, download(name, None, split)[:limit]) for name in names], out)


@app.command()
@user_errors()
def benchmark(
    name: Annotated[
        str, typer.Argument(help="arc_challenge, arc_easy, boolq, gsm8k, hellaswag, openbookqa, ...")
    ],
    out: OutFile,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the dataset.", show_default="the evaluation split")
    ] = None,
) -> None:
    """Make a benchmark file from one of the ten benchmarks on the Hugging Face hub.

    Needs the datasets package (extra `hub`).

        t2l tasks benchmark gsm8k --out benchmarks/gsm8k.jsonl
    """
    from hypernet.data.hub import BENCHMARKS, HubError, benchmark_rows, download
    from hypernet.data.tasks import write_lines

    source = BENCHMARKS.get(name)
    if source is None:
        raise HubError(f"{name!r} is no benchmark. Known are {', '.join(BENCHMARKS)}")
    rows = benchmark_rows(name, download(source.name, source.subset, split or source.split), split)
    write_lines(out, map(json.dumps, rows))
    typer.echo(f"{len(rows)} rows: {out}")


def _write(made: Sequence[Task], out: Path) -> None:
    from hypernet.data.tasks import write_lines

    write_lines(out, (task.model_dump_json(exclude_defaults=True) for task in made))
    typer.echo(f"{len(made)} tasks: {out}")
