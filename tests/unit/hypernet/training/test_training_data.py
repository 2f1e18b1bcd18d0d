"""Which tasks of a file train, validate or are dropped, and that a run says so."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hypernet.base_model import lora_spec
from hypernet.data.tasks import Instance, Task, TaskFileError, load_tasks
from hypernet.frozen import FrozenBase
from hypernet.training.config import MultitaskConfig
from hypernet.training.progress import Reporter
from hypernet.training.training_data import TrainingData, report_tasks, training_data

EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "my-tasks.jsonl"
WORDS = ("cup", "dog", "sun", "tree", "fish", "bell", "coin", "lamp", "moon", "seed")


def make(task: str, answer: str = "red", instances: int = 10, **fields: object) -> Task:
    given = [Instance(input=word, output=[f"{answer} {word}"]) for word in WORDS[:instances]]
    return Task(task=task, descriptions=[f"Say {answer}."], instances=given, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frozen(tiny_base: Path) -> FrozenBase:
    return FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)


def data(frozen: FrozenBase, tasks: list[Task], **changes: object) -> TrainingData:
    choice = {name: changes.pop(name) for name in ("only", "count") if name in changes}
    config = MultitaskConfig.model_validate({"validation_share": 0.3} | changes)
    return training_data(tasks, config, frozen.chat, **choice)  # type: ignore[arg-type]


def test_every_given_task_has_a_use_and_a_reason(frozen: FrozenBase) -> None:
    tasks = [make(f"t{i}", f"colour {i}") for i in range(12)]
    found = data(frozen, tasks)
    assert [use.task for use in found.uses] == [task.task for task in tasks]
    uses = {use.task: use.use for use in found.uses}
    assert {name for name, use in uses.items() if use == "trains"} == {t.name for t in found.training}
    assert {name for name, use in uses.items() if use == "validates"} == {t.name for t in found.validation}
    assert all("8 examples" in use.reason for use in found.uses)


def test_a_task_with_four_examples_is_dropped_with_the_reason(frozen: FrozenBase) -> None:
    found = data(frozen, [*(make(f"t{i}") for i in range(6)), make("small", instances=4)])
    (small,) = [use for use in found.uses if use.task == "small"]
    assert small.use == "dropped"
    assert small.reason.startswith("4 of its 4 instances can train: 5 are needed")


def test_a_task_of_long_examples_is_dropped_with_the_limit(frozen: FrozenBase) -> None:
    long = make("long", answer="x" * 300)
    found = data(frozen, [*(make(f"t{i}") for i in range(6)), long], max_example_tokens=100)
    (use,) = [use for use in found.uses if use.task == "long"]
    assert use.use == "dropped" and "0 of its 10 instances" in use.reason and "at most 100 tokens" in use.reason


def test_near_duplicates_of_validation_tasks_are_dropped_with_the_tasks_name(frozen: FrozenBase) -> None:
    tasks = [make(f"t{i}", f"colour {i}", name=f"n{i}") for i in range(12)]
    kept = data(frozen, tasks).validation[0].name
    built = make("built", f"colour {kept[1:]}", name=f"n{kept[1:]}", derived=True)
    double = make("double", f"colour {kept[1:]}", derived=True)
    found = data(frozen, [*tasks, built, double], drop_near_duplicates=True)
    reasons = {use.task: (use.use, use.reason) for use in found.uses}
    assert reasons["built"] == ("dropped", f"built from the validation task n{kept[1:]}")
    assert reasons["double"] == ("dropped", f"answers as the validation task {kept} does")


def test_tasks_that_are_not_chosen_are_dropped_and_validation_stays(frozen: FrozenBase) -> None:
    tasks = [make(f"t{i}", f"colour {i}") for i in range(12)]
    whole, part = data(frozen, tasks), data(frozen, tasks, count=3)
    assert part.validation == whole.validation and len(part.training) == 3
    dropped = [use for use in part.uses if use.use == "dropped"]
    assert {use.reason for use in dropped} == {"not chosen by --only or --count"}
    assert len(dropped) == len(whole.training) - 3


def test_a_run_without_tasks_names_a_dropped_one(frozen: FrozenBase) -> None:
    config = MultitaskConfig(validation_share=0.3)
    found = training_data([make("small", instances=4)], config, frozen.chat)
    with pytest.raises(TaskFileError, match=r"no task is left to train on.*small: 4 of its 4 instances"):
        found.check(config)


@pytest.mark.parametrize("count", [12, 100])
def test_the_table_is_printed_and_written(frozen: FrozenBase, tmp_path: Path, count: int) -> None:
    tasks = [*(make(f"t{i}", f"colour {i}") for i in range(count)), make("small", instances=4)]
    file = io.StringIO()
    report_tasks(data(frozen, tasks), tmp_path / "run", Reporter(console=Console(file=file, width=200)))
    printed = file.getvalue()
    rows = (tmp_path / "run" / "tasks.tsv").read_text().splitlines()
    assert rows[0] == "task\tuse\treason" and len(rows) == len(tasks) + 1
    assert "small" in printed and "dropped" in printed and f"{len(tasks)} tasks: " in printed
    assert ("t5 " in printed) is (count == 12)  # a long table is only written, but for what is dropped


def test_every_task_of_the_shipped_example_trains_or_validates() -> None:
    tasks = load_tasks(EXAMPLE)
    assert 12 <= len(tasks) <= 24
    assert all(len(task.instances) >= 8 and task.eval_descriptions for task in tasks)
    assert len({task.task for task in tasks}) == len(tasks)
