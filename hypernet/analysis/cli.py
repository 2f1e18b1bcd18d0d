"""`t2l analyse`: costs, compression, robustness and maps of a trained hypernetwork."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypernet.cli_options import (
    BaseModel,
    CheckpointArgument,
    Device,
    EncoderName,
    Limit,
    OutFolder,
    Seed,
    TaskFile,
)
from hypernet.cli_support import user_errors

if TYPE_CHECKING:
    from hypernet.frozen import FrozenBase
    from hypernet.generator import Generator

app = typer.Typer(help="Analyse a trained hypernetwork.", no_args_is_help=True)


@app.callback()
def analyse() -> None:
    """Analyse a trained hypernetwork."""


@app.command("map")
@user_errors()
def map_command(
    checkpoint: CheckpointArgument,
    tasks: TaskFile,
    out: OutFolder,
    permutations: Annotated[
        int, typer.Option(min=1, help="Number of task permutations for the p-values.")
    ] = 999,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Map description embeddings and generated adapters by t-SNE, and correlate their similarities.

    Writes map.svg, map.png and map.json.

        t2l analyse map checkpoints/smollm2-135m \\
            --tasks tasks.unseen.jsonl.gz --out runs/map
    """
    from hypernet.analysis.embedding_map import draw, embedding_map
    from hypernet.data.tasks import load_tasks
    from hypernet.generator import Generator

    given = load_tasks(tasks)
    out.mkdir(parents=True, exist_ok=True)
    generator = Generator.load(checkpoint, encoder, device, base_model)
    found = embedding_map(generator, given, seed=seed, permutations=permutations)
    (out / "map.json").write_text(json.dumps(found.to_json(), indent=1) + "\n")
    for name in ("map.svg", "map.png"):
        draw(found, out / name)
    c = found.correlation
    typer.echo(
        f"{c.tasks} tasks, {len(found.points)} descriptions: Spearman {c.spearman:.3f} "
        f"(p = {c.spearman_p:.4f}), Pearson {c.pearson:.3f} (p = {c.pearson_p:.4f}): {out}/map.svg"
    )


@app.command("compression")
@user_errors()
def compression_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of `t2l train reconstruction`.")
    ],
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Results of `t2l eval`, as described above.")],
    out: OutFolder,
) -> None:
    """Compare the weight error of reconstructed LoRAs with the performance that they keep.

    First evaluate each run RUN with `t2l eval RUN/best --name NAME-OF-RUN --instances held-out
    --oracles LIBRARY --conditions base,oracle,training`. Writes compression.md and compression.svg.

        t2l analyse compression runs/recon-L runs/recon-S \\
            --results runs/compression --out runs/figures
    """
    from hypernet.analysis.compression import compression, draw, table
    from hypernet.evaluation.figures import save
    from hypernet.evaluation.results import read_results

    tasks = compression(runs, read_results(results))
    text = table(tasks)
    save(draw(tasks), out / "compression.svg")
    (out / "compression.md").write_text(text)
    typer.echo(text)


@app.command()
@user_errors()
def nuance(
    checkpoint: CheckpointArgument,
    prompt: Annotated[str, typer.Option(help="Prompt that every adapter answers.")],
    description: Annotated[list[str], typer.Option(help="Task description. May be repeated.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens of an answer.")] = 48,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
) -> None:
    """Answer one prompt under several descriptions, as a Markdown table.

    The first row is the answer of the base model alone.

        t2l analyse nuance checkpoints/smollm2-135m --prompt hot \\
            --description "Give the opposite." --description "Translate to French."
    """
    from hypernet.analysis.nuance import answers, table

    generator, folder = _load(checkpoint, encoder, device, base_model)
    base = _load_base(folder, generator, device)
    typer.echo(table(prompt, answers(base, generator, prompt, description, max_tokens)))


@app.command()
@user_errors()
def robustness(
    checkpoint: CheckpointArgument,
    tasks: TaskFile,
    out: OutFolder,
    trained: Annotated[
        list[Path] | None,
        typer.Option(help="Task file that was trained on, as for `t2l eval`. May be repeated."),
    ] = None,
    limit: Limit = 12,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Evaluate a checkpoint under descriptions of falling quality.

    Writes robustness.md, and the results in a folder below --out. Finished results are read from
    there, so an interrupted run continues with the same command.

        t2l analyse robustness checkpoints/smollm2-135m \\
            --tasks tasks.unseen.jsonl.gz --out runs/robustness
    """
    from hypernet.analysis.robustness import robustness_conditions
    from hypernet.data.tasks import load_tasks
    from hypernet.evaluation.condition_names import count_results, skipped_tasks
    from hypernet.evaluation.progress import progress
    from hypernet.evaluation.questions import QuestionOptions, load_questions
    from hypernet.evaluation.report import report
    from hypernet.evaluation.results import ResultStore
    from hypernet.evaluation.runner import Runner
    from hypernet.evaluation.setup import system_name

    questions = load_questions(QuestionOptions(tasks, limit=limit, seed=seed, trained=trained or ()))
    names = {eval_task.task for eval_task in questions.eval_tasks}
    generator, folder = _load(checkpoint, encoder, device, base_model)
    store = ResultStore(out / f"{folder.name}-n{limit}-seed{seed}")
    given = [task for task in load_tasks(tasks) if task.task in names]
    conditions = robustness_conditions(generator, system_name(checkpoint), given, seed)
    for line in (*questions.skipped, *skipped_tasks(conditions, questions.eval_tasks)):
        typer.echo(line, err=True)
    total = count_results(conditions, questions.eval_tasks)
    runner = Runner(_load_base(folder, generator, device), store, seed)
    results = list(progress(runner.run(conditions, questions.eval_tasks), total, "robustness"))
    text = report(results, seed)
    (out / "robustness.md").write_text(text)
    typer.echo(text)


@app.command()
@user_errors()
def flops(
    checkpoint: CheckpointArgument,
    description: Annotated[int, typer.Option(min=1, help="Tokens of the description.")] = 32,
    shot: Annotated[int, typer.Option(min=1, help="Tokens of one solved example.")] = 64,
    question: Annotated[int, typer.Option(min=1, help="Tokens of the input.")] = 48,
    answer: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 8,
    shots: Annotated[int, typer.Option(min=1, help="Solved examples in the prompt.")] = 3,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
) -> None:
    """Count the FLOPs of an answer with a generated adapter, and with examples in the prompt.

    The counts are exact and follow from shapes alone. Of base model and encoder only config.json is
    read, so a folder with nothing else is enough.

        t2l analyse flops checkpoints/smollm2-135m --question 100 --shot 150
    """
    from hypernet.analysis import flops as count
    from hypernet.base_model import read_config
    from hypernet.checkpoint import load_config
    from hypernet.encoder import encoder_name_for
    from hypernet.model_paths import base_model_folder

    config = load_config(checkpoint)
    base = count.Decoder.of(read_config(base_model_folder(base_model)))
    embedding = count.encoder(encoder_name_for(encoder, config.encoder.name), base_model, description)
    generation = count.hypernetwork(config.hypernet)
    lengths = count.Lengths(description, shot, question, answer, shots)
    costs = count.compare(base, config.hypernet.lora, embedding + generation, lengths)
    typer.echo(
        f"{shots} shots of {shot} tokens, question {question}, answer {answer}, description {description}; "
        f"one adapter: {embedding / 1e9:.3f} GFLOPs to embed, {generation / 1e9:.3f} to generate\n"
    )
    typer.echo(count.table(costs))


def _load(checkpoint: Path, encoder: str | None, device: str, base_model: str | None) -> tuple[Generator, Path]:
    """The hypernetwork, and the folder of its base model."""
    from hypernet.generator import Generator
    from hypernet.model_paths import base_model_folder

    generator = Generator.load(checkpoint, encoder, device, base_model)
    folder = base_model_folder(base_model)
    generator.check_base_model(folder)
    return generator, folder


def _load_base(folder: Path, generator: Generator, device: str) -> FrozenBase:
    from hypernet.frozen import FrozenBase

    return FrozenBase(folder, generator.spec, device)
