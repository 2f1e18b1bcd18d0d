"""`t2l analyse ...` and `t2l flops`: look into a trained hypernetwork."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypernet.errors import T2lError

if TYPE_CHECKING:
    from hypernet.frozen import FrozenBase
    from hypernet.generator import Generator

app = typer.Typer(help="Look into a trained hypernetwork.", no_args_is_help=True)

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint folder.")]
Tasks = Annotated[Path, typer.Option(help="Task file.")]
BaseModel = Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")]
EncoderName = Annotated[
    str | None,
    typer.Option(help="Folder or hub id, base-model, or last-token:NAME; default: the embedded one."),
]
Device = Annotated[str, typer.Option(help="A torch device.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


@app.callback()
def analyse() -> None:
    """Look into a trained hypernetwork."""


@app.command("map")
def map_command(
    checkpoint: Checkpoint,
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder for map.svg, map.png and map.json.")],
    permutations: Annotated[int, typer.Option(help="Relabellings of the tasks, for the p-values.")] = 999,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Draw description embeddings and generated adapters by t-SNE, and correlate their likeness.

    t2l analyse map checkpoints/smollm2-135m --tasks tasks.unseen.jsonl.gz --out runs/map
    """
    from hypernet.analysis.embedding_map import draw, embedding_map
    from hypernet.data.tasks import load_tasks

    with _explained():
        found = embedding_map(
            _generator(checkpoint, encoder, device, base_model),
            load_tasks(tasks),
            seed=seed,
            permutations=permutations,
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "map.json").write_text(json.dumps(found.to_json(), indent=1) + "\n")
    for name in ("map.svg", "map.png"):
        draw(found, out / name)
    c = found.correlation
    typer.echo(
        f"{c.tasks} tasks, {len(found.points)} descriptions: Spearman {c.spearman:.3f} "
        f"(p = {c.spearman_p:.4f}), Pearson {c.pearson:.3f} "
        f"(p = {c.pearson_p:.4f}): {out}/map.svg"
    )


@app.command("compression")
def compression_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `t2l train reconstruction`.")],
    results: Annotated[Path, typer.Option(help="Cells of `t2l eval`, see above.")],
    out: Annotated[Path, typer.Option(help="Folder for compression.md and compression.svg.")],
) -> None:
    """How much of a library's LoRAs each network keeps: error of the weights against performance.

    Each run R is evaluated before with `t2l eval R/best --name NAME-OF-R --instances held-out
    --oracles LIBRARY --conditions base,oracle,training`.

        t2l analyse compression runs/recon-L runs/recon-S --results runs/compression --out runs/figures
    """
    from hypernet.analysis.compression import CompressionError, compression, draw, table
    from hypernet.evaluation.figures import save
    from hypernet.evaluation.results import read_results

    try:
        kept = compression(runs, read_results(results))
        shown = table(kept)
    except CompressionError as error:
        raise typer.BadParameter(str(error)) from error
    save(draw(kept), out / "compression.svg")
    (out / "compression.md").write_text(shown)
    typer.echo(shown)


@app.command()
def nuance(
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Option(help="What every adapter is asked.")],
    description: Annotated[list[str], typer.Option(help="A description; give several.")],
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 48,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
) -> None:
    """Answer one prompt under several descriptions, side by side, as a Markdown table.

    t2l analyse nuance checkpoints/smollm2-135m --prompt hot --description "Give the opposite."
    --description "Translate to French."
    """
    from hypernet.analysis.nuance import answers, table

    with _explained():
        base, generator = _parts(checkpoint, encoder, device, base_model)
    typer.echo(table(prompt, answers(base, generator, prompt, description, max_tokens)))


@app.command()
def robustness(
    checkpoint: Checkpoint,
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="Folder for robustness.md and, below it, the results.")],
    trained: Annotated[
        list[Path] | None, typer.Option(help="As `t2l eval` takes it: what it holds is not asked. May repeat.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Questions per task.", min=1)] = 12,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Measure one checkpoint under descriptions of falling quality.

    Interrupted? Run the same line again: finished results are read from OUT.

    t2l analyse robustness checkpoints/smollm2-135m --tasks tasks.unseen.jsonl.gz --out runs/robustness
    """
    from rich.progress import track

    from hypernet.analysis.robustness import robustness_conditions
    from hypernet.data.tasks import load_tasks
    from hypernet.evaluation.cli import load_eval_tasks, system_name
    from hypernet.evaluation.report import report
    from hypernet.evaluation.results import ResultStore
    from hypernet.evaluation.runner import Runner

    with _explained():
        eval_tasks = [
            eval_task
            for eval_task in load_eval_tasks(tasks, trained or [], examples, seed)
            if eval_task.samples
        ]
        asked = {eval_task.task for eval_task in eval_tasks}
        given = [task for task in load_tasks(tasks) if task.task in asked]
        base, generator = _parts(checkpoint, encoder, device, base_model)
        conditions = robustness_conditions(generator, system_name(checkpoint), given, seed)
    runner = Runner(base, ResultStore(out / f"{base.name}-n{examples}-seed{seed}"), seed)
    # Tasks without a definition have fewer conditions: the total is an upper bound.
    measured = runner.run(conditions, eval_tasks)
    found = list(track(measured, total=len(given) * len(conditions), description="robustness"))
    (out / "robustness.md").write_text(report(found, seed))
    typer.echo(report(found, seed))


def flops(
    checkpoint: Checkpoint,
    description: Annotated[int, typer.Option(help="Tokens of the description.")] = 32,
    shot: Annotated[int, typer.Option(help="Tokens of one worked example.")] = 64,
    question: Annotated[int, typer.Option(help="Tokens of the input.")] = 48,
    answer: Annotated[int, typer.Option(help="Tokens of the answer.")] = 8,
    shots: Annotated[int, typer.Option(help="Worked examples in the prompt.")] = 3,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
) -> None:
    """Count the FLOPs of an answer through a generated adapter, and of the same with examples in the prompt.

    Exact, from shapes alone: of the base model and encoder only config.json is read,
    so a folder that holds nothing else will do.

    t2l flops checkpoints/smollm2-135m --question 100 --shot 150
    """
    from hypernet.analysis import flops as count
    from hypernet.base_model import read_config
    from hypernet.checkpoint import load_config
    from hypernet.encoder import encoder_name_for
    from hypernet.model_paths import base_model_folder

    lengths = count.Lengths(description, shot, question, answer, shots)
    with _explained():
        config = load_config(checkpoint)
        base = count.Decoder.of(read_config(base_model_folder(base_model)))
        embedding = count.encoder(encoder_name_for(encoder, config.encoder.name), base_model, description)
        writing = count.hypernetwork(config.hypernet)
        variants = count.compare(base, config.hypernet.lora, embedding + writing, lengths)
    typer.echo(
        f"{shots} shots of {shot} tokens, question {question}, answer {answer}, description {description}; "
        f"one adapter: {embedding / 1e9:.3f} GFLOPs to embed, {writing / 1e9:.3f} to write\n"
    )
    typer.echo(count.table(variants))


def _generator(checkpoint: Path, encoder: str | None, device: str, base_model: str | None) -> Generator:
    from hypernet.generator import Generator

    return Generator.load(checkpoint, encoder, device, base_model)


def _parts(
    checkpoint: Path, encoder: str | None, device: str, base_model: str | None
) -> tuple[FrozenBase, Generator]:
    """Base model and hypernetwork, which belong together."""
    from hypernet.frozen import FrozenBase
    from hypernet.model_paths import base_model_folder

    generator = _generator(checkpoint, encoder, device, base_model)
    base = FrozenBase(base_model_folder(base_model), generator.spec, device)
    generator.check_base_model(base.name, base.fingerprint)
    return base, generator


@contextmanager
def _explained() -> Iterator[None]:
    """What is wrong with an argument, as one line instead of a traceback."""
    try:
        yield
    except (T2lError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
