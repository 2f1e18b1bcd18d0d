"""`t2l eval` measures a checkpoint against controls and baselines; `t2l report` makes tables of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypernet.evaluation.eval_task import EvalTask, Instances

if TYPE_CHECKING:
    from hypernet.evaluation.conditions import Condition
    from hypernet.evaluation.remote import RemoteRunner
    from hypernet.evaluation.results import ResultStore
    from hypernet.evaluation.runner import Runner
    from hypernet.generator import Generator


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder.")],
    tasks: Annotated[Path | None, typer.Option(help="Task file, .jsonl or .jsonl.gz.")] = None,
    benchmarks: Annotated[
        Path | None, typer.Option(help="Folder of the ten benchmarks: NAME.jsonl each, and descriptions.json.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Cells go to OUT/SETTINGS, one JSON file each.")] = Path(
        "runs/eval"
    ),
    examples: Annotated[int, typer.Option(help="Questions per task.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of questions, mismatches, random strings, intervals.")] = 0,
    conditions: Annotated[str | None, typer.Option(help="Comma-separated; default: all that can run.")] = None,
    only: Annotated[
        str | None, typer.Option(help="Names of tasks, with commas between; `fv_*` is all that begin so.")
    ] = None,
    instances: Annotated[
        Instances, typer.Option(help="`held-out`: what training on this file left out.")
    ] = "all",
    trained: Annotated[
        list[Path] | None,
        typer.Option(help="Task file that was trained on: what it shares with TASKS is not asked. May repeat."),
    ] = None,
    multitask: Annotated[Path | None, typer.Option(help="PEFT folder of one LoRA for all tasks.")] = None,
    library: Annotated[Path | None, typer.Option(help="Library of task LoRAs: for average and arrow.")] = None,
    oracles: Annotated[
        Path | None, typer.Option(help="TASK/ PEFT folders: for oracle. Needs --instances held-out.")
    ] = None,
    hyperdecoder: Annotated[
        Path | None, typer.Option(help="Checkpoint trained on inputs as descriptions.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="Ask a running server, by its URL; scores only.")] = None,
    name: Annotated[str | None, typer.Option(help="What tables call it; default: its folder's name.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id; default: the checkpoint's.")] = None,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
) -> None:
    """Evaluate a checkpoint beside its controls and baselines, and print the tables.

    Conditions: copy, base, prompted, icl; multitask, average, arrow, oracle, hyperdecoder where
    their adapters are given; and of the checkpoint matched (held-out descriptions),
    training, mismatched, random, empty. matched_prompted and matched_icl have the description or
    three solved examples in the prompt, too; so have multitask_prompted and multitask_icl.
    Interrupted? Run the same line again: finished results are read from OUT. Another checkpoint
    with the same OUT reuses the baselines'.

        t2l eval checkpoints/smollm2-135m --tasks tasks.unseen.jsonl.gz
    """
    from rich.progress import track

    from hypernet.base_model import BaseModelError, fingerprint
    from hypernet.bundled_models import ModelNotFoundError
    from hypernet.checkpoint import CheckpointError
    from hypernet.data.tasks import TaskFileError, select_names
    from hypernet.evaluation.benchmarks import BENCHMARKS, BenchmarkError, load_benchmarks
    from hypernet.evaluation.conditions import mismatched_descriptions, t2l_conditions
    from hypernet.evaluation.prompt_forms import combined
    from hypernet.evaluation.remote import ServerError
    from hypernet.evaluation.report import report
    from hypernet.evaluation.results import ResultStore
    from hypernet.generator import Generator, MismatchError
    from hypernet.library import LibraryError
    from hypernet.lora import InvalidLoraError
    from hypernet.model_paths import base_model_folder

    errors = (
        *(BaseModelError, BenchmarkError, CheckpointError, InvalidLoraError, LibraryError),
        *(MismatchError, ModelNotFoundError, TaskFileError),
    )
    if oracles and instances != "held-out":
        raise typer.BadParameter(
            "an oracle has trained on four fifths of its task's instances: add --instances held-out",
            param_hint="--oracles",
        )
    try:
        asked = load_eval_tasks(tasks, trained or [], examples, seed, instances) if tasks else []
        known = [*(s.task for s in asked), *(BENCHMARKS if benchmarks else ())]
        named = set(select_names(known, only))
        marks = load_benchmarks(benchmarks, examples, seed, named) if benchmarks else []
        generator = Generator.load(checkpoint, encoder, device, base_model)
        folder = base_model_folder(base_model)
        generator.check_base_model(folder.name, fingerprint(folder))
        found = _baselines(generator, multitask, library, oracles)
        if hyperdecoder:
            found.append(_hyperdecoder(hyperdecoder, generator, encoder, device, base_model))
    except errors as error:
        raise typer.BadParameter(str(error)) from error
    mismatched = {
        t: w for some in (asked, marks) for t, w in mismatched_descriptions(_held_out(some), seed).items()
    }
    found += t2l_conditions(generator, name or system_name(checkpoint), mismatched, seed)
    found += combined(found)
    chosen = _choose(found, conditions)
    eval_tasks = [s for s in (*asked, *marks) if s.task in named]
    chosen, eval_tasks = _what_can_be_asked(chosen, eval_tasks, server)
    served = "-served" if server else ""
    store = ResultStore(out / f"{folder.name}-n{examples}-seed{seed}-{instances}{served}")
    runner = _runner(server, generator, folder, store, seed, device)
    total = sum(not condition.skip_reason(s) for condition in chosen for s in eval_tasks)
    try:
        results = list(track(runner.run(chosen, eval_tasks), total=total, description="evaluate"))
    except (*errors, ServerError) as error:
        raise typer.BadParameter(f"{error}. Finished results are kept in {store.folder}") from error
    typer.echo(report(results, seed))


def tables(
    folder: Annotated[Path, typer.Argument(help="Cells are read from here and below.")],
    out: Annotated[
        Path | None, typer.Option(help="Write tables.md, figures and a CSV of every score there, too.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Names of tasks, as `t2l eval` takes them.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
) -> None:
    """Print the tables of results that `t2l eval` wrote, and draw their figures.

    A main table, then paired differences of the own description from every other row;
    figures of the differences and of each task; a CSV of every task's scores.

        t2l report runs/eval --out docs/results
    """
    from hypernet.data.tasks import TaskFileError, select_names
    from hypernet.evaluation.figures import write_figures
    from hypernet.evaluation.report import group_name, groups, report, scores
    from hypernet.evaluation.results import results_by_folder

    every = results_by_folder(folder)
    if not every:
        raise typer.BadParameter(f"{folder} holds no result: `t2l eval` writes them")
    try:
        names = set(
            select_names(sorted({result.task for results in every.values() for result in results}), only)
        )
    except TaskFileError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error
    found = [
        (part.name, [result for result in results if result.task in names]) for part, results in every.items()
    ]
    found = [(settings, results) for settings, results in found if results]
    text = "\n".join(f"# {settings}\n\n{report(results, seed)}" for settings, results in found)
    typer.echo(text)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "tables.md").write_text(text)
        for settings, results in found:
            (out / f"{settings}-scores.csv").write_text(scores(results))
            for group in groups(results):
                for path in write_figures(group, out, f"{settings}-{group_name(group)}", seed):
                    typer.echo(path, err=True)


def load_eval_tasks(
    tasks: Path, trained: list[Path], n: int, seed: int, instances: Instances = "all"
) -> list[EvalTask]:
    """Sheets of a task file, without what training has seen in other tasks: answers, and descriptions."""
    from hypernet.data.tasks import load_tasks, training_pairs, without_trained_paraphrases
    from hypernet.evaluation.eval_task import build_eval_task

    given = load_tasks(tasks)
    theirs = [task for path in trained for task in load_tasks(path)]
    known = training_pairs(theirs)
    if instances == "held-out":
        known |= training_pairs(given)
    eval_tasks = []
    for task in given:
        new = task if instances == "held-out" else without_trained_paraphrases(task, theirs)
        if new is None:
            typer.echo(f"left out: {task.task}, all its descriptions are some training task's", err=True)
        else:
            eval_tasks.append(build_eval_task(new, n, seed, instances, known))
    return eval_tasks


def _what_can_be_asked(
    conditions: list[Condition], eval_tasks: list[EvalTask], server: str | None
) -> tuple[list[Condition], list[EvalTask]]:
    """Conditions and eval_tasks without those that come to nothing, each of which is named."""
    from hypernet.evaluation.remote import is_servable

    for gone in (s.task for s in eval_tasks if not s.samples):
        typer.echo(f"left out: {gone}, training has seen all that could be asked", err=True)
    eval_tasks = [s for s in eval_tasks if s.samples]
    if not eval_tasks:
        raise typer.BadParameter("nothing to ask: give --tasks or --benchmarks")
    for condition in conditions:
        if server and not is_servable(condition):
            typer.echo(f"left out: {condition.name}, which no server can be asked for", err=True)
        for reason, without in Counter(filter(None, map(condition.skip_reason, eval_tasks))).items():
            typer.echo(f"left out: {condition.name} of {without} tasks: {reason}", err=True)
    return [c for c in conditions if not server or is_servable(c)], eval_tasks


def _runner(
    server: str | None, generator: Generator, folder: Path, store: ResultStore, seed: int, device: str
) -> Runner | RemoteRunner:
    """What answers: a server, or the base model in this process."""
    from transformers import AutoTokenizer

    from hypernet.evaluation.remote import RemoteRunner, ServerError
    from hypernet.evaluation.runner import Runner
    from hypernet.frozen import FrozenBase
    from hypernet.hardware import fastest_dtype
    from hypernet.packing import ChatFormat

    if not server:
        return Runner(FrozenBase(folder, generator.spec, device, fastest_dtype(device)), store, seed)
    chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
    try:
        return RemoteRunner(server, generator.fingerprint, folder.name, chat, store, seed)
    except ServerError as error:
        raise typer.BadParameter(str(error), param_hint="--server") from error


def _baselines(
    generator: Generator, multitask: Path | None, library: Path | None, oracles: Path | None
) -> list[Condition]:
    """The conditions that do not need the checkpoint, but its base model.

    Raises:
        LibraryError, InvalidLoraError: LoRAs are missing, malformed, or say that they are for another model.
    """
    from hypernet.evaluation.baselines import ArrowRouting, AverageLora, MultitaskLora, OracleLora
    from hypernet.evaluation.conditions import BaseModelOnly, CopyInput, DescriptionInPrompt, InContextLearning
    from hypernet.library import MANIFEST_FILE, Library
    from hypernet.lora import InvalidLoraError
    from hypernet.peft_io import read_provenance

    found: list[Condition] = [CopyInput(), BaseModelOnly(), DescriptionInPrompt(), InContextLearning()]
    if multitask:
        found.append(MultitaskLora(multitask, generator.spec, system_name(multitask)))
        its_base = read_provenance(multitask).get("t2l.base_model", generator.base_fingerprint)
        if its_base != generator.base_fingerprint:
            raise InvalidLoraError(
                f"{multitask} is for base model {its_base}, not {generator.base_fingerprint}"
            )
    if library:
        loras = Library.open(library, generator.base_fingerprint)
        found += [AverageLora(loras, generator.spec), ArrowRouting(loras, generator.spec)]
    if oracles:
        if (oracles / MANIFEST_FILE).exists():
            Library.open(oracles, generator.base_fingerprint)  # refuses one for another base model
        found.append(OracleLora(oracles, generator.spec))
    return found


def _hyperdecoder(
    folder: Path, tested: Generator, encoder: str | None, device: str, base_model: str | None
) -> Condition:
    """The Hyperdecoder of a checkpoint folder."""
    from hypernet.evaluation.conditions import Hyperdecoder
    from hypernet.generator import Generator
    from hypernet.lora import InvalidLoraError

    generator = Generator.load(folder, encoder, device, base_model)
    if generator.spec != tested.spec:
        raise InvalidLoraError(f"{folder} writes LoRAs of {generator.spec}, the checkpoint of {tested.spec}")
    return Hyperdecoder(system_name(folder), generator)


def system_name(checkpoint: Path) -> str:
    """What to call a checkpoint: its folder, or the run whose best or last one it is."""
    path = checkpoint.resolve()
    run = path.parent.name
    return {"best": run, "last": f"{run}-last"}.get(path.name, path.name)


NEEDS = {
    "multitask": "--multitask",
    "multitask_prompted": "--multitask",
    "multitask_icl": "--multitask",
    "average": "--library",
    "arrow": "--library",
    "oracle": "--oracles",
    "hyperdecoder": "--hyperdecoder",
}


def _choose(found: list[Condition], wanted: str | None) -> list[Condition]:
    """Those that are wanted and can run, with a line about each that is wanted and cannot."""
    from hypernet.evaluation.report import NAMES, REWRITTEN

    known = [name for name in NAMES if name not in REWRITTEN]
    names = _list(wanted) or known
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"--conditions: {name} is unknown, known are {', '.join(known)}")
        if name not in {condition.name for condition in found}:
            typer.echo(f"left out: {name}, it needs {NEEDS[name]}", err=True)
    return [condition for condition in found if condition.name in names]


def _held_out(eval_tasks: list[EvalTask]) -> dict[str, Sequence[str]]:
    return {eval_task.task: eval_task.eval_descriptions for eval_task in eval_tasks}


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()
