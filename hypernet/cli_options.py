"""The options that several commands share, each with one name, one help text and one type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CheckpointArgument = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder.")]

BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", help="Base model: a folder or hub id.", show_default="the bundled model"),
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="Description encoder: a folder, a hub id, base-model, or last-token:NAME.",
        show_default="the checkpoint's, or the bundled encoder",
    ),
]


def _usable_device(name: str) -> str:
    """Refuse a device that torch does not know or this machine does not have."""
    if name != "cpu":
        from hypernet.hardware import device_problem  # imports torch: `--help` does without

        if problem := device_problem(name):
            raise typer.BadParameter(problem)
    return name


Device = Annotated[
    str, typer.Option("--device", callback=_usable_device, help="Torch device, such as cpu or cuda.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.", show_default="all cores")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Maximum number of questions per task.")]

TaskFile = Annotated[Path, typer.Option("--tasks", help="Task file, .jsonl or .jsonl.gz.")]
TaskFiles = Annotated[
    list[Path], typer.Option("--tasks", help="Task file, .jsonl or .jsonl.gz. May be repeated.")
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="NAMES",
        help="Task names, separated by commas. `fv_*` selects every name that begins with `fv_`.",
        show_default="all tasks",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--count",
        min=1,
        help="Number of tasks, chosen at random. A smaller choice is part of a larger one.",
        show_default="all tasks",
    ),
]

OutFolder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Output folder.")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="Output file.")]

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file, as in hypernet/configs.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a field of --config. May be repeated."),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Override --config: maximum number of steps.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Override --config: time limit in minutes.")]
ConfigSeed = Annotated[int | None, typer.Option("--seed", help="Override --config: random seed.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished run in --out.")]
