"""The questions of an evaluation: samples of a task file and of benchmarks that training has not
seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypernet.data.tasks import (
    Task,
    load_tasks,
    select_names,
    training_pairs,
    without_trained_paraphrases,
)
from hypernet.errors import T2lError
from hypernet.evaluation.benchmarks import BENCHMARKS, load_benchmarks
from hypernet.evaluation.conditions import mismatched_descriptions
from hypernet.evaluation.eval_task import EvalTask, Instances, build_eval_task


class QuestionError(T2lError):
    """Nothing is left to evaluate on, or two tasks share a name."""


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What to evaluate on.

    Attributes:
        tasks: task file.
        benchmarks: folder of benchmark files.
        only: names of tasks and benchmarks, as `data.tasks.select_names` takes them. None: all.
        limit: maximum number of samples per task.
        seed: of the draw, and of the mismatched tasks.
        instances: `held-out` draws only instances that training on the task file leaves out.
        trained: task files that were trained on. Their pairs and descriptions are not used.
    """

    tasks: Path | None = None
    benchmarks: Path | None = None
    only: str | None = None
    limit: int = 20
    seed: int = 0
    instances: Instances = "all"
    trained: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of an evaluation.

    Attributes:
        eval_tasks: at least one; each has samples.
        mismatched: task -> descriptions of other tasks, see `mismatched_descriptions`.
        skipped: a line per task that is left out, with the reason.
    """

    eval_tasks: list[EvalTask]
    mismatched: dict[str, Sequence[str]]
    skipped: list[str]


def load_questions(options: QuestionOptions) -> Questions:
    """Draw the samples of all selected tasks and benchmarks.

    Raises:
        QuestionError: neither tasks nor benchmarks are given, nothing is left of them, or two share
            a name.
        BenchmarkError, TaskFileError: a file cannot be read, or `only` names no task.
    """
    if not options.tasks and not options.benchmarks:
        raise QuestionError("nothing to evaluate on: give --tasks or --benchmarks")
    tasks = load_tasks(options.tasks) if options.tasks else []
    names = [task.task for task in tasks]
    selected = set(select_names([*names, *(BENCHMARKS if options.benchmarks else ())], options.only))
    from_tasks, unread = _from_tasks(tasks, options)
    from_benchmarks = (
        load_benchmarks(options.benchmarks, options.limit, options.seed, selected & set(BENCHMARKS))
        if options.benchmarks
        else []
    )
    chosen = [eval_task for eval_task in (*from_tasks, *from_benchmarks) if eval_task.task in selected]
    repeated = sorted(name for name, count in Counter(t.task for t in chosen).items() if count > 1)
    if repeated:  # the results of one would replace those of the other
        raise QuestionError(f"two tasks are called {repeated[0]}: give each task a name of its own")
    reasons = {name: "training has seen all its descriptions" for name in unread if name in selected}
    reasons |= {t.task: "training has seen all its instances" for t in chosen if not t.samples}
    skipped = [f"left out: {name}, {reason}" for name, reason in reasons.items()]
    eval_tasks = [eval_task for eval_task in chosen if eval_task.samples]
    if not eval_tasks:
        raise QuestionError(f"nothing to evaluate on: {'; '.join(skipped)}")
    return Questions(
        eval_tasks, _mismatched(from_tasks, options.seed) | _mismatched(from_benchmarks, options.seed), skipped
    )


def _from_tasks(tasks: Sequence[Task], options: QuestionOptions) -> tuple[list[EvalTask], list[str]]:
    """Eval tasks without the pairs and descriptions of training,
    and names of tasks without descriptions.
    """
    trained = [task for path in options.trained for task in load_tasks(path)]
    pairs = training_pairs(trained)
    if options.instances == "held-out":
        pairs |= training_pairs(tasks)
    eval_tasks, unread = [], []
    for task in tasks:
        unseen = task if options.instances == "held-out" else without_trained_paraphrases(task, trained)
        if unseen is None:
            unread.append(task.task)
        else:
            eval_tasks.append(build_eval_task(unseen, options.limit, options.seed, options.instances, pairs))
    return eval_tasks, unread


def _mismatched(eval_tasks: Sequence[EvalTask], seed: int) -> dict[str, Sequence[str]]:
    """Mismatched descriptions within one file: of all its tasks,
    so that `--only` does not change them.
    """
    descriptions = {t.task: t.eval_descriptions for t in eval_tasks}
    return mismatched_descriptions(descriptions, {t.task for t in eval_tasks if t.description_only}, seed)
