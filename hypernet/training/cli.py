"""`t2l train`: the training commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train a hypernetwork, or the plain LoRAs it is held against.", no_args_is_help=True)

Tasks = Annotated[
    list[Path], typer.Option(help="Task file, .jsonl or .jsonl.gz; its format is in the README. May repeat.")
]
Config = Annotated[Path | None, typer.Option(help="YAML file, see hypernet/configs.")]
Steps = Annotated[int | None, typer.Option(help="Overrides the file: stop after so many steps.")]
Minutes = Annotated[float | None, typer.Option(help="Overrides the file: stop after so many minutes.")]
Seed = Annotated[int | None, typer.Option(help="Overrides the file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Overrides any field of the file. May repeat."),
]
BaseModel = Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")]
Encoder = Annotated[
    str | None,
    typer.Option(help="Folder or hub id, base-model, or last-token:NAME; default: the embedded one."),
]
Device = Annotated[str, typer.Option(help="A torch device.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: all.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run in OUT.")]
Only = Annotated[
    str | None, typer.Option(help="Names of tasks, with commas between; `fv_*` is all that begin so.")
]
Count = Annotated[int | None, typer.Option(help="So many tasks; a smaller choice is part of a larger one.")]


Descriptions = Annotated[
    Path | None,
    typer.Option(help='File of further descriptions, one {"task": ..., "descriptions": [...]} a line.'),
]


@app.callback()
def train() -> None:
    """Train a hypernetwork, or the plain LoRAs it is held against."""


@contextmanager
def _usage_errors(threads: int | None) -> Iterator[None]:
    """Set the threads; turn what the user can mend into a usage error, without a traceback."""
    import torch

    from hypernet.base_model import BaseModelError
    from hypernet.bundled_models import ModelNotFoundError
    from hypernet.checkpoint import CheckpointError
    from hypernet.data.tasks import TaskFileError
    from hypernet.generator import MismatchError
    from hypernet.library import LibraryError
    from hypernet.lora import InvalidLoraError
    from hypernet.training.config import TrainingConfigError

    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    except (
        BaseModelError,
        CheckpointError,
        FileExistsError,
        InvalidLoraError,
        LibraryError,
        MismatchError,
        ModelNotFoundError,
        TaskFileError,
        TrainingConfigError,
    ) as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def sft(
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder of the run; the best checkpoint lands in OUT/best.")],
    only: Only = None,
    count: Count = None,
    descriptions: Descriptions = None,
    config: Config = None,
    variant: Annotated[str | None, typer.Option(help="Overrides the file: L, L-rank, M or S.")] = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Seed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    encoder: Encoder = None,
    device: Device = "cpu",
    threads: Threads = None,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint of the same shape to start from, instead of from nothing.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Supervised fine-tuning through the frozen base model.

    Each batch holds several tasks; one description of each goes through the
    hypernetwork, and the loss is that of the task's answers under the LoRA it wrote.
    With --start the last step's checkpoint is kept beside the best, in OUT/last. Safe to
    kill: run the same line with --resume.

        t2l train sft --tasks tasks.jsonl.gz --out runs/l --config hypernet/configs/l-sft.yaml

    On several GPUs, each with its share of every batch:

        torchrun --nproc-per-node 8 --no-python t2l train sft --device cuda ...
    """
    with _usage_errors(threads):
        from hypernet.model_paths import base_model_folder
        from hypernet.training.config import SftConfig, assignments, load_config
        from hypernet.training.distributed import is_main_process
        from hypernet.training.sft import train_sft

        given = {"variant": variant, "steps": steps, "minutes": minutes, "seed": seed}
        settings = load_config(SftConfig, config, **given | assignments(set_ or ()))
        state = train_sft(
            tasks,
            out,
            settings,
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
def multitask(
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder of the run; the best LoRA lands in OUT/best.")],
    descriptions: Descriptions = None,
    config: Config = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Seed = None,
    set_: Set = None,
    base_model: BaseModel = None,
    encoder: Encoder = None,
    device: Device = "cpu",
    threads: Threads = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Hypernetwork to start from: the LoRA nearest to the mean of what it writes."),
    ] = None,
    resume: Resume = False,
) -> None:
    """One plain LoRA for all tasks: what a hypernetwork has to beat.

    The same batches, loss and schedule as `t2l train sft`, without a description. The
    result is a PEFT folder. With --start the last step's is kept, too, in OUT/last. Safe to
    kill: run the same line with --resume.

        t2l train multitask --tasks tasks.jsonl.gz --out runs/multitask --steps 1000
    """
    with _usage_errors(threads):
        from hypernet.model_paths import base_model_folder
        from hypernet.training.config import MultitaskConfig, assignments, load_config
        from hypernet.training.static_lora import train_multitask

        given = {"steps": steps, "minutes": minutes, "seed": seed}
        settings = load_config(MultitaskConfig, config, **given | assignments(set_ or ()))
        state = train_multitask(
            tasks,
            out,
            settings,
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
def oracles(
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder of the library: one PEFT folder per task.")],
    only: Only = None,
    count: Count = None,
    config: Config = None,
    steps: Steps = None,
    seed: Seed = None,
    base_model: BaseModel = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """One plain LoRA per task, several at a time: the library that reconstruction imitates.

    Every LoRA is trained on four fifths of its task's instances, whether the task is
    for training or for evaluation. Tasks that the library has already stay as they
    are. Safe to kill: run the same line again.

        t2l train oracles --tasks tasks.jsonl.gz --out runs/library --count 64 --steps 120
    """
    with _usage_errors(threads):
        from hypernet.model_paths import base_model_folder
        from hypernet.training.config import OracleConfig, load_config
        from hypernet.training.oracle import train_oracles

        library = train_oracles(
            tasks,
            out,
            load_config(OracleConfig, config, steps=steps, seed=seed),
            base_model=base_model_folder(base_model),
            device=device,
            only=only,
            count=count,
            report=typer.echo,
        )
    losses = [library.entry(name).held_out_loss for name in library]
    typer.echo(f"{len(library)} LoRAs, held-out NLL {sum(losses) / len(losses):.4f}: {out}")


@app.command()
def reconstruction(
    library: Annotated[Path, typer.Option(help="Library of LoRAs, made by `t2l train oracles`.")],
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder of the run; the best checkpoint lands in OUT/best.")],
    only: Only = None,
    count: Count = None,
    config: Config = None,
    variant: Annotated[str | None, typer.Option(help="Overrides the file: L, L-rank, M or S.")] = None,
    target: Annotated[str | None, typer.Option(help="Overrides the file: factors or delta_w.")] = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Seed = None,
    base_model: Annotated[
        str | None, typer.Option(help="Only for the encoder `base-model`, which it stands for.")
    ] = None,
    encoder: Encoder = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Teach a hypernetwork to write the LoRAs of a library from their tasks' descriptions.

    The task files give the descriptions; the base model is not loaded. OUT/log.jsonl
    has the error of every task. Safe to kill: run the same line with --resume.

        t2l train reconstruction --library runs/library --tasks tasks.jsonl.gz --out runs/l-recon \\
            --config hypernet/configs/reconstruction.yaml --steps 2000
    """
    with _usage_errors(threads):
        from hypernet.training.config import ReconstructionConfig, load_config
        from hypernet.training.reconstruction import train_reconstruction

        settings = load_config(
            ReconstructionConfig,
            config,
            variant=variant,
            target=target,
            steps=steps,
            minutes=minutes,
            seed=seed,
        )
        state = train_reconstruction(
            library,
            tasks,
            out,
            settings,
            encoder=encoder,
            base_model=base_model,
            device=device,
            only=only,
            count=count,
            resume=resume,
        )
    typer.echo(f"{state.step} steps, {state.seconds / 60:.1f} minutes, loss {state.best:.5f}: {out}/best")


@app.command()
def distill(
    teacher: Annotated[Path, typer.Option(help="Checkpoint to learn from.")],
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder of the run; the best checkpoint lands in OUT/best.")],
    config: Config = None,
    variant: Annotated[str | None, typer.Option(help="Overrides the file: L, L-rank, M or S.")] = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Seed = None,
    base_model: Annotated[
        str | None, typer.Option(help="Only for the encoder `base-model`, which it stands for.")
    ] = None,
    encoder: Encoder = None,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Teach a small hypernetwork to write what a large one writes.

    The base model is not loaded: minutes here do what an hour of `t2l train sft` does,
    and `t2l train sft --start OUT/best` goes on from there. Safe to kill: run the same
    line with --resume.

        t2l train distill --teacher runs/l/best --tasks tasks.jsonl.gz --out runs/m --variant M --steps 300
    """
    with _usage_errors(threads):
        from hypernet.training.config import DistillationConfig, load_config
        from hypernet.training.distillation import train_distillation

        settings = load_config(
            DistillationConfig, config, variant=variant, steps=steps, minutes=minutes, seed=seed
        )
        state = train_distillation(
            teacher,
            tasks,
            out,
            settings,
            encoder=encoder,
            base_model=base_model,
            device=device,
            resume=resume,
        )
    typer.echo(
        f"{state.step} steps, {state.seconds / 60:.1f} minutes, relative error {state.best:.3f}: {out}/best"
    )
