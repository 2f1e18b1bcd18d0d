"""The validation tasks of a run, and their forms of prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hypernet.data.overlap import plain
from hypernet.data.tasks import Task, split_validation
from hypernet.packing import ChatFormat, Example
from hypernet.training.batches import described, few_shot
from hypernet.training.config import MultitaskConfig
from hypernet.training.training_tasks import TrainingTask

MAX_SAME_ANSWERS = 0.4
"""Fraction of common inputs that two different tasks may answer alike."""
MIN_SAME_ANSWERS = 3
"""Fewer equal answers are chance."""
SHOTS = 3


@dataclass(frozen=True, slots=True)
class Split:
    """Which tasks train and which choose the checkpoint."""

    training: list[Task]
    validation: list[Task]
    dropped: dict[str, str]
    """Name -> reason, of the tasks that do neither."""


def split_tasks(tasks: list[Task], config: MultitaskConfig) -> Split:
    """Split tasks. Near-duplicates of validation tasks are dropped if the configuration says so."""
    training, validation = split_validation(tasks, config.validation_share)
    kept = {task.task for task in (*training, *validation)}
    dropped = {
        task.task: f"built from the validation task {task.name}" for task in tasks if task.task not in kept
    }
    if config.drop_near_duplicates:
        alike = near_duplicates(training, validation)
        dropped |= {name: f"answers as the validation task {other} does" for name, other in alike.items()}
        training = [task for task in training if task.task not in alike]
    return Split(training, validation, dropped)


def near_duplicates(tasks: Iterable[Task], others: Iterable[Task]) -> dict[str, str]:
    """Tasks that answer the inputs of another task as that task does: name -> name of the other."""
    answers: dict[str, dict[str, set[str]]] = defaultdict(dict)  # input -> other task -> its answers
    for other in others:
        for instance in other.instances:
            answers[plain(instance.input)].setdefault(other.task, set()).update(map(plain, instance.output))
    found = {}
    for task in tasks:
        common, same = Counter[str](), Counter[str]()
        for instance in task.split_instances()[0]:
            for name, given in answers.get(plain(instance.input), {}).items():
                common[name] += 1
                same[name] += plain(instance.output[0]) in given
        for name, count in same.most_common():
            if count >= MIN_SAME_ANSWERS and count > MAX_SAME_ANSWERS * common[name]:
                found[task.task] = name
                break
    return found


def prompt_forms(
    task: TrainingTask, description: str, config: MultitaskConfig, chat: ChatFormat
) -> dict[str, list[Example]]:
    """The task's validation examples in each form of prompt that the run trains with, except the
    bare one.

    Args:
        task: a validation task.
        description: description for the prompt.
        config: its `prompt_shares` name the forms.
        chat: the base model's chat format.
    """
    asked, spare = task.examples[: config.validation_examples], task.examples[config.validation_examples :]
    texts = {e.text for e in asked}
    shots = [e for e in spare if e.text not in texts][:SHOTS]
    forms = {}
    if config.prompt_shares.get("description"):
        forms["description"] = described(asked, description, chat)
    if config.prompt_shares.get("examples") and shots:
        forms["examples"] = few_shot(asked, shots, chat)
    return forms


def mean_by_form(scores: Sequence[tuple[str, float]]) -> dict[str, float]:
    """(form, NLL) of tasks -> metric names and means over tasks."""
    forms = dict.fromkeys(form for form, _ in scores)
    values = {form: [value for name, value in scores if name == form] for form in forms}
    return {f"validation_nll_{form}": sum(v) / len(v) for form, v in values.items()}
