"""`t2l train`: the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hypernet.cli_options import (
    BaseModel,
    Config,
    ConfigSeed,
    Count,
    Device,
    EncoderName,
    Minutes,
    Only,
    OutFolder,
    Resume,
    Set,
    Steps,
    TaskFiles,
    Threads,
)
from hypernet.cli_support import use_threads, user_errors

app = typer.Typer(help="Train a hypernetwork, or plain LoRAs to compare it with.", no_args_is_help=True)

Variant = Annotated[
    str | None, typer.Option("--variant", help="Override --config: L, L-rank, M or S.", show_default=False)
]
Descriptions = Annotated[
    Path | None,
    typer.Option(
        "--descriptions",
        metavar="FILE",
        help='More descriptions: one {"task": ..., "descriptions": [...]} a line.',
    ),
]
Target = Annotated[
    str | None, typer.Option("--target", help="Override --config: factors or delta_w.", show_default=False)
]


@app.callback()
def train() -> None:
    """Train a hypernetwork, or plain LoRAs to compare it with."""


@app.command()
@user_errors()
def sft(
    tasks: TaskFiles,
    out: OutFolder,
    only: Only = None,
    count: Count = None,
    descriptions: Descriptions = None,
    config: Config = None,
    variant: Variant = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: ConfigSeed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    threads: Threads = None,
    start: Annotated[
        Path | None,
        typer.Option("--start", metavar="FOLDER", help="Checkpoint of the same shape to continue from."),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a hypernetwork by supervised fine-tuning through the frozen base model.

    Each batch holds several tasks. One description of each goes through the
    hypernetwork. The loss is that of the task's answers under the generated LoRA.
    OUT/best is the checkpoint with the lowest validation loss. With --start,
    OUT/last is the checkpoint of the last step. After a kill, run the same line
    with --resume.

    Your own tasks, five minutes from the shipped checkpoint:

        t2l train sft --tasks docs/examples/my-tasks.jsonl \\
            --config hypernet/configs/own-tasks.yaml --start checkpoints/smollm2-135m --out
            runs/mine

    From scratch:

        t2l train sft --tasks tasks.jsonl.gz --config hypernet/configs/l-sft.yaml --out runs/l

    On several GPUs, each with its part of every batch:

        torchrun --nproc-per-node 8 --no-python t2l train sft --device cuda ...
    """
    use_threads(threads)
    from hypernet.model_paths import base_model_folder
    from hypernet.training.config import SftConfig, load_config
    from hypernet.training.distributed import is_main_process
    from hypernet.training.sft import train_sft

    state = train_sft(
        tasks,
        out,
        load_config(SftConfig, config, set_, variant=variant, steps=steps, minutes=minutes, seed=seed),
        base_model=base_model_folder(base_model),
        encoder=encoder,
        device=device,
        start=start,
        only=only,
        count=count,
        descriptions=descriptions,
        resume=resume,
    )
    if is_main_process():
        typer.echo(
            f"{state.step} steps, {state.seconds / 60:.1f} minutes, validation NLL {state.best:.4f}: {out}/best"
        )


@app.command()
@user_errors()
def multitask(
    tasks: TaskFiles,
    out: OutFolder,
    descriptions: Descriptions = None,
    config: Config = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: ConfigSeed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    threads: Threads = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="FOLDER",
            help="Hypernetwork to continue from: the LoRA nearest to the mean of its LoRAs.",
        ),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train one plain LoRA for all tasks: the baseline of a hypernetwork.

    Batches, loss and schedule are those of `t2l train sft`, without a
    description. OUT/best is a PEFT folder. With --start, OUT/last is the LoRA of
    the last step. After a kill, run the same line with --resume.

        t2l train multitask --tasks t.jsonl.gz --config hypernet/configs/multitask.yaml --out runs/m
    """
    use_threads(threads)
    from hypernet.model_paths import base_model_folder
    from hypernet.training.config import MultitaskConfig, load_config
    from hypernet.training.static_lora import train_multitask

    state = train_multitask(
        tasks,
        out,
        load_config(MultitaskConfig, config, set_, steps=steps, minutes=minutes, seed=seed),
        base_model=base_model_folder(base_model),
        encoder=encoder,
        device=device,
        start=start,
        descriptions=descriptions,
        resume=resume,
    )
    typer.echo(
        f"{state.step} steps, {state.seconds / 60:.1f} minutes, validation NLL {state.best:.4f}: {out}/best"
    )


@app.command()
@user_errors()
def oracles(
    tasks: TaskFiles,
    out: OutFolder,
    only: Only = None,
    count: Count = None,
    config: Config = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: ConfigSeed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train one plain LoRA per task: the library for `t2l train reconstruction`.

    Several train at a time. Every LoRA trains on four fifths of the instances of
    its task, of training and of evaluation tasks alike. Tasks that the library has
    already are skipped. --minutes is the time for each group of tasks. After a
    kill, run the same line again.

        t2l train oracles --tasks tasks.jsonl.gz --count 64 --steps 120 --out runs/library
    """
    use_threads(threads)
    from hypernet.model_paths import base_model_folder
    from hypernet.training.config import OracleConfig, load_config
    from hypernet.training.oracle import train_oracles

    library = train_oracles(
        tasks,
        out,
        load_config(OracleConfig, config, set_, steps=steps, minutes=minutes, seed=seed),
        base_model=base_model_folder(base_model),
        device=device,
        only=only,
        count=count,
    )
    losses = [library.entry(name).held_out_loss for name in library]
    typer.echo(f"{len(library)} LoRAs, held-out NLL {sum(losses) / len(losses):.4f}: {out}")


@app.command()
@user_errors()
def reconstruction(
    library: Annotated[
        Path,
        typer.Option("--library", metavar="FOLDER", help="Library of LoRAs, made by `t2l train oracles`."),
    ],
    tasks: TaskFiles,
    out: OutFolder,
    only: Only = None,
    count: Count = None,
    config: Config = None,
    variant: Variant = None,
    target: Target = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: ConfigSeed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Train a hypernetwork to reproduce the LoRAs of a library.

    The task files give the descriptions. --base-model matters only to the encoder
    `base-model`: no base model is loaded otherwise. OUT/log.jsonl has the error
    of every task. After a kill, run the same line with --resume.

        t2l train reconstruction --library runs/library --tasks tasks.jsonl.gz --out runs/l-recon \\
            --config hypernet/configs/reconstruction.yaml --steps 2000
    """
    use_threads(threads)
    from hypernet.training.config import ReconstructionConfig, load_config
    from hypernet.training.reconstruction import train_reconstruction

    options = {"variant": variant, "target": target, "steps": steps, "minutes": minutes, "seed": seed}
    state = train_reconstruction(
        library,
        tasks,
        out,
        load_config(ReconstructionConfig, config, set_, **options),
        encoder=encoder,
        base_model=base_model,
        device=device,
        only=only,
        count=count,
        resume=resume,
    )
    typer.echo(f"{state.step} steps, {state.seconds / 60:.1f} minutes, loss {state.best:.5f}: {out}/best")


@app.command()
@user_errors()
def distill(
    teacher: Annotated[Path, typer.Option("--teacher", metavar="FOLDER", help="Checkpoint of the teacher.")],
    tasks: TaskFiles,
    out: OutFolder,
    config: Config = None,
    variant: Variant = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: ConfigSeed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Train a small hypernetwork to reproduce the LoRAs of a large one.

    Minutes here replace an hour of `t2l train sft`, which continues from the
    result with --start. --base-model matters only to the encoder `base-model`: no
    base model is loaded otherwise. After a kill, run the same line with --resume.

        t2l train distill --teacher runs/l/best --tasks t.jsonl.gz --variant M --out runs/m
    """
    use_threads(threads)
    from hypernet.training.config import DistillationConfig, load_config
    from hypernet.training.distillation import train_distillation

    state = train_distillation(
        teacher,
        tasks,
        out,
        load_config(DistillationConfig, config, set_, variant=variant, steps=steps, minutes=minutes, seed=seed),
        encoder=encoder,
        base_model=base_model,
        device=device,
        resume=resume,
    )
    typer.echo(
        f"{state.step} steps, {state.seconds / 60:.1f} minutes, relative error {state.best:.3f}: {out}/best"
    )
