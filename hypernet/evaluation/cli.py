"""`t2l eval`: measure a checkpoint on unseen tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder.")],
    tasks: Annotated[Path, typer.Option(help="Task file of tasks that were never trained on.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for one JSON file per cell; default: runs/eval/NAME.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Instances per task.")] = 20,
    seed: Annotated[int, typer.Option(help="Of mismatches, random strings and the bootstrap.")] = 0,
    base_model: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")] = None,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
) -> None:
    """Evaluate on unseen tasks against the controls, and print the table of the model card.

    Conditions: base model; base with the description in the prompt; adapters from
    held-out descriptions, from another task's descriptions, and from random letters.
    Interrupted? Run the same line again: finished cells are read from OUT.

        t2l eval checkpoints/smollm2-135m --tasks tasks.unseen.jsonl.gz
    """
    from rich.progress import track

    from hypernet.checkpoint import CheckpointError, fingerprint
    from hypernet.evaluation.report import table
    from hypernet.evaluation.zero_shot import CONDITIONS, ZeroShot
    from hypernet.frozen import FrozenBase
    from hypernet.generator import Generator, MismatchError
    from hypernet.models import ModelNotFoundError, base_model_folder
    from hypernet.training.data import TaskFileError, load_tasks

    try:
        unseen = load_tasks(tasks)
        generator = Generator.load(checkpoint, encoder, device)
        base = FrozenBase(base_model_folder(base_model), generator.spec, device)
        generator.check_base(base.name, base.fingerprint)
    except (CheckpointError, MismatchError, ModelNotFoundError, TaskFileError) as error:
        raise typer.BadParameter(str(error)) from error
    # The folder names what the cells depend on, so that cells of another checkpoint are never taken for these.
    folder = (out or Path("runs/eval")) / f"{fingerprint(checkpoint)}-n{examples}-seed{seed}"
    cells = ZeroShot(base, generator, examples, seed).run(unseen, folder)
    done = list(track(cells, total=len(unseen) * len(CONDITIONS), description="evaluate"))
    typer.echo(table(done, seed))
