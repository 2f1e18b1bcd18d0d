"""Commands of the hypernetwork package. `server.cli` mounts them into `t2l`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hypernet.analysis.cli import app as analyse
from hypernet.cli_options import BaseModel, EncoderName, OutFolder
from hypernet.cli_support import user_errors
from hypernet.data.cli import app as tasks
from hypernet.evaluation.cli import evaluate, report_command
from hypernet.model_paths import DEFAULT_CHECKPOINT
from hypernet.preflight import ModelChoice, check_generate
from hypernet.training.cli import app as train

app = typer.Typer(no_args_is_help=True)
app.add_typer(train, name="train")
app.add_typer(tasks, name="tasks")
app.add_typer(analyse, name="analyse")
app.command("eval")(evaluate)
app.command("report")(report_command)


@app.command("import-reference")
@user_errors()
def import_reference_command(
    src: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder with hypermod.pt, args.yaml and adapter_config.json."),
    ],
    dst: Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint folder to write.")],
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Base model of the checkpoint: a folder or hub id. Its config.json is enough.",
            show_default="model_dir in args.yaml",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Description encoder of the checkpoint, to record its fingerprint: a folder or hub id.",
            show_default="none, only the name emb_model in args.yaml is recorded",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of the published Text-to-LoRA reference for `t2l serve`.

    Weights are stored in fp32, so generated adapters agree with the reference to 1e-5.

    Only config.json of the base model is needed. Where the weights are present, too, their
    fingerprint is recorded, and a server refuses another base model. Without a fingerprint a server
    compares shapes, and warns when the name differs. The same holds for the encoder.

        t2l import-reference gemma_2b_t2l checkpoints/gemma-2-2b --base-model ~/gemma-2-2b-it
    """
    from hypernet.model_paths import encoder_folder, model_folder
    from hypernet.reference import ARGS_FILE, import_reference, read_args

    args = read_args(src / ARGS_FILE)
    base = model_folder(base_model or args.model_dir, files=["config.json"])
    config = import_reference(src, dst, base, encoder_folder(encoder) if encoder else None)
    lora = config.hypernet.lora
    modules = ", ".join(module.name for module in lora.modules)
    typer.echo(
        f"{dst}: variant {config.hypernet.variant}, rank {lora.rank} on {modules} of {lora.num_layers} layers"
    )
    typer.echo(f"  base model {config.base_model}")
    typer.echo(f"  encoder    {config.encoder}")


@app.command()
@user_errors()
def generate(
    description: Annotated[str, typer.Argument(help="Task description, in a sentence or a few.")],
    out: OutFolder,
    checkpoint: Annotated[Path, typer.Option(help="Hypernetwork checkpoint.")] = DEFAULT_CHECKPOINT,
    encoder: EncoderName = None,
    base_model: BaseModel = None,
) -> None:
    """Generate one adapter without a server: a folder that PEFT and `vllm --lora-modules` load.

    --base-model matters only to a checkpoint whose encoder is `base-model`.

        t2l generate "Give a word with the opposite meaning." --out adapters/antonym
    """
    check_generate(ModelChoice(checkpoint, encoder, base_model))
    import torch

    from hypernet.generator import Generator
    from hypernet.model_paths import model_name
    from hypernet.peft_io import provenance, save_adapter

    generator = Generator.load(checkpoint, encoder, base_model=base_model)
    prepared = generator.prepare(description)
    for warning in prepared.warnings:
        typer.echo(f"warning: {warning.message}", err=True)
    adapter = generator.generate([prepared.text])[0].to(torch.bfloat16)
    name = generator.base_model_name
    origin = provenance(prepared.text, generator.fingerprint, generator.base_fingerprint)
    save_adapter(out, adapter, name, origin)
    typer.echo(f"{out}: {adapter.nbytes / 1e6:.2f} MB for {model_name(name)}")
