"""`t2l train`: the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train a hypernetwork.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train a hypernetwork."""


@app.command()
def sft(
    tasks: Annotated[
        list[Path],
        typer.Option(help="Task file, .jsonl or .jsonl.gz; its format is in the README. May repeat."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the best checkpoint lands in OUT/best.")],
    config: Annotated[Path | None, typer.Option(help="YAML file, see hypernet/configs.")] = None,
    variant: Annotated[str | None, typer.Option(help="Overrides the file: L, L-rank, M or S.")] = None,
    steps: Annotated[int | None, typer.Option(help="Overrides the file: stop after so many steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Overrides the file: stop after so many minutes.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the file.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")] = None,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint of the same shape to start from, instead of from nothing.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run in OUT.")] = False,
) -> None:
    """Supervised fine-tuning through the frozen base model.

    Each batch holds several tasks; one description of each goes through the
    hypernetwork, and the loss is that of the task's answers under the LoRA it wrote.
    Safe to kill: run the same line with --resume.

        t2l train sft --tasks tasks.jsonl.gz --out runs/l --config hypernet/configs/l-sft.yaml
    """
    import torch

    from hypernet.checkpoint import CheckpointError
    from hypernet.models import ModelNotFoundError, base_model_folder
    from hypernet.training.config import SftConfig, TrainingConfigError, load_config
    from hypernet.training.data import TaskFileError
    from hypernet.training.sft import train_sft

    if threads:
        torch.set_num_threads(threads)
    try:
        settings = load_config(SftConfig, config, variant=variant, steps=steps, minutes=minutes, seed=seed)
        state = train_sft(
            tasks,
            out,
            settings,
            base_model=base_model_folder(base_model),
            encoder=encoder,
            device=device,
            start=start,
            resume=resume,
        )
    except (CheckpointError, TrainingConfigError, TaskFileError, ModelNotFoundError, FileExistsError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(
        f"{state.step} steps, {state.seconds / 60:.1f} minutes, validation NLL {state.best:.4f}: {out}/best"
    )
