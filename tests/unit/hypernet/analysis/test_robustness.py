import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypernet.analysis.errors import TooFewTasksError
from hypernet.analysis.nuance import answers
from hypernet.analysis.nuance import table as nuance_table
from hypernet.analysis.robustness import half, robustness_conditions, shuffled, terse, with_typos
from hypernet.base_model import lora_spec
from hypernet.data.tasks import Instance, Task
from hypernet.evaluation.decoding import greedy
from hypernet.evaluation.eval_task import build_eval_task
from hypernet.evaluation.report import ROBUSTNESS_TITLES
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator

TEXT = st.text("abcde ,.", min_size=1, max_size=60)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> FrozenBase:
    return FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)


def tasks() -> list[Task]:
    return [
        Task(
            task=f"fv_{i}",
            definition=f"definition {i}" if i else "",
            descriptions=[f"one way to say {i}", f"another way, {i}", "a third way"],
            eval_descriptions=[f"how to do task {i}"],
            instances=[Instance(input=f"input {k}", output=[f"out {k}"]) for k in range(4)],
        )
        for i in range(3)
    ]


@given(TEXT, st.integers())
def test_typos_and_shuffles_keep_letters_and_words(text: str, seed: int) -> None:
    rng = random.Random(seed)
    assert sorted(with_typos(text, rng)) == sorted(text)
    assert sorted(shuffled(text, rng).split()) == sorted(text.split())
    assert half(text).split() == text.split()[: max(1, len(text.split()) // 2)]
    assert terse(text).split() == text.split()[:3]


def test_typos_change_the_text() -> None:
    text = "Translate the given sentence from English into French."
    assert with_typos(text, random.Random(0)) != text


def test_worse_descriptions_and_controls_are_conditions(tiny_generator: Generator) -> None:
    given = tasks()
    conditions = {c.name: c for c in robustness_conditions(tiny_generator, "t", given, seed=0)}
    assert set(conditions) == {"matched", "empty", "mismatched", "random", *ROBUSTNESS_TITLES}
    eval_task = build_eval_task(given[0], 3, seed=0)
    skipping = {name for name, condition in conditions.items() if condition.skip_reason(eval_task)}
    assert skipping == {"definition"}
    identities = {name: str(condition.identity(eval_task)) for name, condition in conditions.items()}
    assert len(set(identities.values())) == len(conditions)
    assert "one way to say 0" in identities["other"]
    assert "'how to'" in identities["half"]
    assert "'how to do'" in identities["terse"]
    again = {
        c.name: str(c.identity(eval_task)) for c in robustness_conditions(tiny_generator, "t", given, seed=0)
    }
    assert again == identities


def test_a_single_task_has_no_mismatched_task(tiny_generator: Generator) -> None:
    with pytest.raises(TooFewTasksError, match="at least two tasks"):
        robustness_conditions(tiny_generator, "t", tasks()[:1], seed=0)


def test_nuance_lists_the_answer_of_each_description(base: FrozenBase, tiny_generator: Generator) -> None:
    prompt = "a | b"
    found = answers(base, tiny_generator, prompt, ["Say it\nloud.", "Say it."], max_tokens=5)
    assert [a.description for a in found] == [None, "Say it\nloud.", "Say it."]
    alone = greedy(base, [base.chat.prompt(prompt)], None, 5)[0]
    assert found[0].text == base.chat.text(alone).strip()
    lines = nuance_table(prompt, found).splitlines()
    assert lines[0] == "Prompt: a \\| b"
    assert len(lines) == 7
    assert "Say it<br>loud." in lines[5]
