"""Commands of the science, mounted into `t2l` by the server's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hypernet.evaluation.cli import evaluate
from hypernet.training.cli import app as train

app = typer.Typer(no_args_is_help=True)
app.add_typer(train, name="train")
app.command("eval")(evaluate)


@app.command("import-reference")
def import_reference_command(
    src: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds hypermod.pt, args.yaml, adapter_config.json.")
    ],
    dst: Annotated[Path, typer.Argument(metavar="OUT", help="The checkpoint folder to write.")],
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Base model it was trained for: a folder or hub id.", show_default="model_dir in args.yaml"
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder of its descriptions: a folder or hub id.", show_default="emb_model in args.yaml"
        ),
    ] = None,
) -> None:
    """Turn a checkpoint of the published Text-to-LoRA reference into one that `t2l serve` can load.

    The weights are kept in fp32, so the adapters it writes stay the same to 1e-5.
    Base model and encoder are recorded by fingerprint, which reads their weight
    files but loads no model; a server refuses to combine the result with others.

    Example: t2l import-reference trained_t2l/gemma_2b_t2l checkpoints/gemma-2-2b --base-model ~/gemma-2-2b-it
    """
    from hypernet.base_model import BaseModelError
    from hypernet.lora import InvalidLoraError
    from hypernet.models import ModelNotFoundError, folder
    from hypernet.reference import ARGS_FILE, ReferenceImportError, import_reference, read_args

    try:
        args = read_args(src / ARGS_FILE)
        base, sentences = folder(base_model or args.model_dir), folder(encoder or args.emb_model)
        config = import_reference(src, dst, base, sentences)
    except (ReferenceImportError, ModelNotFoundError, BaseModelError, InvalidLoraError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    lora = config.hypernet.lora
    modules = ", ".join(module.name for module in lora.modules)
    typer.echo(
        f"{dst}: variant {config.hypernet.variant}, rank {lora.rank} on {modules} of {lora.num_layers} layers"
    )
    typer.echo(f"  base model {config.base_model.name} ({config.base_model.fingerprint})")
    typer.echo(f"  encoder    {config.encoder.name} ({config.encoder.fingerprint})")
