"""`t2l tasks from-hub` and `t2l tasks benchmark`: files from Hugging Face datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


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
    from hypernet.tasks import write_lines
    from hypernet.training.hub import HubError, download, natural_instruction

    try:
        tasks = [natural_instruction(name, download(name, None, split)[:limit]) for name in names]
    except HubError as error:
        raise typer.BadParameter(str(error)) from error
    write_lines(out, (task.model_dump_json() for task in tasks))
    typer.echo(f"{len(tasks)} tasks: {out}")


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
    from hypernet.tasks import write_lines
    from hypernet.training.hub import BENCHMARKS, HubError, benchmark_rows, download

    source = BENCHMARKS.get(name)
    if source is None:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(BENCHMARKS)}")
    try:
        rows = benchmark_rows(name, download(source.name, source.subset, split or source.split), split)
    except HubError as error:
        raise typer.BadParameter(str(error)) from error
    write_lines(out, map(json.dumps, rows))
    typer.echo(f"{len(rows)} rows: {out}")
