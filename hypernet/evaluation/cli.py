"""`t2l eval` evaluates a checkpoint beside controls and baselines;
`t2l report` prints its tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from hypernet.cli_options import BaseModel, CheckpointArgument, Device, EncoderName, Limit, Only, Seed
from hypernet.cli_support import user_errors
from hypernet.evaluation.eval_task import Instances


@user_errors()
def evaluate(
    checkpoint: CheckpointArgument,
    tasks: Annotated[Path | None, typer.Option(help="Task file, .jsonl or .jsonl.gz.")] = None,
    benchmarks: Annotated[
        Path | None, typer.Option(help="Folder of benchmarks: NAME.jsonl and descriptions.json.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Results go to OUT/SETTINGS, one JSON file per task and condition.")
    ] = Path("runs/eval"),
    limit: Limit = 20,
    seed: Seed = 0,
    conditions: Annotated[
        str | None,
        typer.Option(help="Comma-separated names.", show_default="all whose adapters are given"),
    ] = None,
    only: Only = None,
    instances: Annotated[
        Instances,
        typer.Option(help="held-out: only instances that training on --tasks leaves out."),
    ] = "all",
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            help="Task file that was trained on: its descriptions and its pairs of input and output are not "
            "used. May be repeated."
        ),
    ] = None,
    multitask: Annotated[Path | None, typer.Option(help="PEFT folder of one LoRA for all tasks.")] = None,
    library: Annotated[Path | None, typer.Option(help="Library of task LoRAs, for average and arrow.")] = None,
    oracles: Annotated[
        Path | None,
        typer.Option(help="Folder with a PEFT folder per task, for oracle. Needs --instances held-out."),
    ] = None,
    hyperdecoder: Annotated[
        Path | None, typer.Option(help="Checkpoint that was trained with inputs as descriptions.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="URL of a running server to evaluate. Gives scores without likelihoods.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the checkpoint in tables.", show_default="the folder's name"),
    ] = None,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
    device: Device = "cpu",
) -> None:
    """Evaluate a checkpoint beside its controls and baselines, and print the tables.

    Conditions without the checkpoint: copy, base, prompted, icl, and with the option of their
    adapters multitask, average, arrow, oracle and hyperdecoder. Conditions of the checkpoint:
    matched (held-out descriptions), training, mismatched, random, empty. The suffixes _prompted
    and _icl of matched and multitask add the description or three examples to the prompt.

    Finished results are read from --out, so an interrupted evaluation continues with the same
    command, and several checkpoints share the results of their baselines.

        t2l eval checkpoints/smollm2-135m --tasks tasks.unseen.jsonl.gz
    """
    from hypernet.evaluation.condition_names import (
        count_results,
        missing_conditions,
        parse_conditions,
        select_conditions,
        skipped_tasks,
    )
    from hypernet.evaluation.progress import progress
    from hypernet.evaluation.questions import QuestionOptions, load_questions
    from hypernet.evaluation.remote import is_servable
    from hypernet.evaluation.report import report
    from hypernet.evaluation.results import ResultStore
    from hypernet.evaluation.setup import (
        BaselineOptions,
        ModelOptions,
        load_checkpoint,
        load_conditions,
        load_runner,
    )
    from hypernet.model_paths import base_model_folder

    names = parse_conditions(conditions)
    models = ModelOptions(checkpoint, name, base_model, encoder, device)
    baselines = BaselineOptions(multitask, library, oracles, hyperdecoder)
    baselines.check(instances)
    questions = load_questions(QuestionOptions(tasks, benchmarks, only, limit, seed, instances, trained or ()))
    _print_lines(questions.skipped)
    settings = f"{base_model_folder(base_model).name}-n{limit}-seed{seed}-{instances}"
    store = ResultStore(out / f"{settings}{'-served' if server else ''}")
    generator = load_checkpoint(models)
    available = load_conditions(models, baselines, generator, questions, seed)
    _print_lines(missing_conditions(available, names))
    chosen = select_conditions(available, names)
    if server:
        _print_lines(f"left out: {c.name}, a server cannot evaluate it" for c in chosen if not is_servable(c))
        chosen = [condition for condition in chosen if is_servable(condition)]
    _print_lines(skipped_tasks(chosen, questions.eval_tasks))
    total = count_results(chosen, questions.eval_tasks)
    runner = load_runner(models, generator, server, store, seed)
    typer.echo(f"results: {store.folder}", err=True)
    results = list(progress(runner.run(chosen, questions.eval_tasks), total, "evaluate"))
    typer.echo(report(results, seed))


@user_errors()
def report_command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of results; folders below it are read, too.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables.md, figures and a CSV of all scores.")
    ] = None,
    only: Only = None,
    seed: Seed = 0,
) -> None:
    """Print the tables of results that `t2l eval` wrote, and draw their figures.

    The main table has a row per condition. The next table has paired differences: the checkpoint
    with its own descriptions minus each other row. Figures show these differences and the scores
    of each task.

        t2l report runs/eval --out runs/eval/report
    """
    from hypernet.data.tasks import select_names
    from hypernet.evaluation.figures import write_figures
    from hypernet.evaluation.report import group_name, report, scores, table_groups
    from hypernet.evaluation.results import NoResultsError, damaged_results, results_by_folder

    _print_lines(f"skipped: {path} is damaged; `t2l eval` makes it again" for path in damaged_results(folder))
    by_folder = results_by_folder(folder)
    if not by_folder:
        raise NoResultsError(f"{folder} holds no result: `t2l eval` writes them")
    names = sorted({result.task for results in by_folder.values() for result in results})
    chosen = set(select_names(names, only))
    sections = [
        (part.name, [result for result in results if result.task in chosen])
        for part, results in by_folder.items()
    ]
    sections = [(settings, results) for settings, results in sections if results]
    text = "\n".join(f"# {settings}\n\n{report(results, seed)}" for settings, results in sections)
    typer.echo(text)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "tables.md").write_text(text)
        for settings, results in sections:
            (out / f"{settings}-scores.csv").write_text(scores(results))
            for group in table_groups(results):
                _print_lines(
                    str(path) for path in write_figures(group, out, f"{settings}-{group_name(group)}", seed)
                )


def _print_lines(lines: Iterable[str]) -> None:
    """Print lines on stderr: stdout is for tables alone."""
    for line in lines:
        typer.echo(line, err=True)
