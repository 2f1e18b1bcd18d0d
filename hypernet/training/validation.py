"""What a run holds back to choose its checkpoint, and in which forms of prompt that is asked."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from hypernet.data.tasks import Task, split_validation
from hypernet.packing import ChatFormat, Example
from hypernet.training.batches import described, few_shot
from hypernet.training.config import MultitaskConfig
from hypernet.training.training_tasks import TrainingTask

ALIKE = 0.4
"""Share of common inputs that two tasks may answer alike before they count as the same task."""
FEWEST_ALIKE = 3
"""Fewer common answers are chance."""
SHOTS = 3


def split_tasks(tasks: list[Task], config: MultitaskConfig) -> tuple[list[Task], list[Task]]:
    """(training, validation), without training tasks that give validation tasks away, if the run wants that."""
    training, validation = split_validation(tasks, config.validation_share)
    if config.drop_near_duplicates:
        alike = near_duplicates(training, validation)
        training = [task for task in training if task.task not in alike]
    return training, validation


def near_duplicates(tasks: Iterable[Task], others: Iterable[Task]) -> dict[str, str]:
    """Names of the tasks that answer inputs of another task as it does -> that other task."""
    answers: dict[str, dict[str, set[str]]] = defaultdict(dict)  # input -> other task -> its answers
    for other in others:
        for instance in other.instances:
            answers[_plain(instance.input)].setdefault(other.task, set()).update(map(_plain, instance.output))
    found = {}
    for task in tasks:
        common, same = Counter[str](), Counter[str]()
        for instance in task.split_instances()[0]:
            for name, given in answers.get(_plain(instance.input), {}).items():
                common[name] += 1
                same[name] += _plain(instance.output[0]) in given
        for name, count in same.most_common():
            if count >= FEWEST_ALIKE and count > ALIKE * common[name]:
                found[task.task] = name
                break
    return found


def prompt_forms(
    task: TrainingTask, description: str, config: MultitaskConfig, chat: ChatFormat
) -> dict[str, list[Example]]:
    """The task's validation examples in each form of prompt but the bare one that the run trains with.

    Args:
        task: a validation task.
        description: stands in the prompt.
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


def _plain(text: str) -> str:
    """As exact match sees it: without case and punctuation."""
    return re.sub(r"\W", "", text.lower())
