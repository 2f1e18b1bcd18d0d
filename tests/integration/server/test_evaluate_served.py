"""Evaluation through a running server and through transformers: the same questions,
the same scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import AutoTokenizer

from hypernet.bundled_models import base_model_path
from hypernet.data.tasks import Instance, Task
from hypernet.evaluation.conditions import (
    BaseModelOnly,
    Condition,
    DescriptionInPrompt,
    InContextLearning,
    mismatched_descriptions,
    t2l_conditions,
)
from hypernet.evaluation.eval_task import build_eval_task
from hypernet.evaluation.remote import RemoteRunner, ServerError, is_servable
from hypernet.evaluation.results import EvalResult, ResultStore
from hypernet.evaluation.runner import Runner
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.packing import ChatFormat

pytestmark = pytest.mark.integration

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "smollm2-135m"
PAIRS = {
    "opposite": ("Give a word with the opposite meaning.", "hot cold up down big small wet dry in out old new"),
    "plural": ("Write the plural of the noun.", "cat cats dog dogs car cars box boxes tree trees hat hats"),
}


def tasks() -> list[Task]:
    made = []
    for name, (description, words) in PAIRS.items():
        split = words.split()
        instances = [Instance(input=a, output=[b]) for a, b in zip(split[::2], split[1::2], strict=True)]
        made.append(Task(task=name, metric="rougeL", descriptions=[description], instances=instances))
    return made


def test_server_and_transformers_give_the_same_scores(default_server: str, tmp_path: Path) -> None:
    generator = Generator.load(CHECKPOINT)
    folder = base_model_path()
    eval_tasks = [build_eval_task(task, 3, seed=0) for task in tasks()]
    mismatched = mismatched_descriptions({t.task: t.eval_descriptions for t in eval_tasks}, (), seed=0)
    every: list[Condition] = [
        BaseModelOnly(),
        DescriptionInPrompt(),
        InContextLearning(),
        *t2l_conditions(generator, "t", mismatched, seed=0),
    ]
    conditions = [c for c in every if is_servable(c)]
    assert [c.name for c in every if c not in conditions] == ["empty"]
    base = FrozenBase(folder, generator.spec, "cpu", torch.float32)
    here = by_name(Runner(base, ResultStore(tmp_path / "here"), 0).run(conditions, eval_tasks))
    chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
    remote = RemoteRunner(
        default_server, generator.fingerprint, folder.name, chat, ResultStore(tmp_path / "there"), 0
    )
    there = by_name(remote.run(conditions, eval_tasks))
    assert here.keys() == there.keys()
    same = [
        a == b
        for key in here
        for mine, theirs in zip(here[key].answers, there[key].answers, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    assert fmean(same) > 0.95  # both in fp32; a tie between two tokens may still be broken differently
    for key in here:
        assert there[key].nll is None
        assert here[key].score == pytest.approx(there[key].score, abs=0.2), key
    assert by_name(remote.run(conditions, eval_tasks)) == there  # from disk


def test_server_with_another_checkpoint_and_absent_server_are_refused(
    default_server: str, tmp_path: Path
) -> None:
    chat = ChatFormat(AutoTokenizer.from_pretrained(base_model_path()))
    with pytest.raises(ServerError, match="serves checkpoint"):
        RemoteRunner(default_server, "0" * 16, "b", chat, ResultStore(tmp_path), 0)
    with pytest.raises(ServerError, match="did not answer"):
        RemoteRunner("http://127.0.0.1:9", "0" * 16, "b", chat, ResultStore(tmp_path), 0)


def by_name(results: Iterator[EvalResult]) -> dict[tuple[str, str], EvalResult]:
    return {(c.task, c.condition): c for c in results}
