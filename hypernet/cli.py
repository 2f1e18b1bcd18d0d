"""Commands of the science, mounted into `t2l` by the server's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hypernet.analysis.cli import app as analyse
from hypernet.analysis.cli import flops
from hypernet.data.cli import app as tasks
from hypernet.evaluation.cli import evaluate, tables
from hypernet.model_paths import DEFAULT_CHECKPOINT
from hypernet.training.cli import app as train

app = typer.Typer(no_args_is_help=True)
app.add_typer(train, name="train")
app.add_typer(tasks, name="tasks")
app.add_typer(analyse, name="analyse")
app.command("eval")(evaluate)
app.command("report")(tables)
app.command()(flops)


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
    from hypernet.bundled_models import ModelNotFoundError
    from hypernet.lora import InvalidLoraError
    from hypernet.model_paths import model_folder
    from hypernet.reference import ARGS_FILE, ReferenceImportError, import_reference, read_args

    try:
        args = read_args(src / ARGS_FILE)
        base, name = model_folder(base_model or args.model_dir), encoder or args.emb_model
        config = import_reference(src, dst, base, model_folder(name) if name else None)
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


@app.command()
def generate(
    description: Annotated[str, typer.Argument(help="What the model should do, in a sentence or a few.")],
    out: Annotated[Path, typer.Option(help="The PEFT adapter folder to write.")],
    checkpoint: Annotated[Path, typer.Option(help="A hypernetwork checkpoint.")] = DEFAULT_CHECKPOINT,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")] = None,
    base_model: Annotated[
        str | None, typer.Option(help="What the encoder `base-model` stands for; default: the embedded one.")
    ] = None,
) -> None:
    """Write one adapter without a server, as a folder that PEFT and `vllm --lora-modules` load.

    Example: t2l generate "Give a word with the opposite meaning." --out adapters/antonym
    """
    import torch

    from hypernet.bundled_models import ModelNotFoundError
    from hypernet.checkpoint import CheckpointError, load_config
    from hypernet.generator import Generator, MismatchError
    from hypernet.peft_io import provenance, save_adapter

    try:
        base = load_config(checkpoint).base_model.name
        writer = Generator.load(checkpoint, encoder, base_model=base_model)
    except (CheckpointError, MismatchError, ModelNotFoundError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    adapter = writer.generate([description])[0].to(torch.bfloat16)
    save_adapter(out, adapter, base, provenance(description, writer.fingerprint))
    typer.echo(f"{out}: {adapter.nbytes / 1e6:.2f} MB for {base}")
