import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypernet.analysis.nuance import answers
from hypernet.analysis.nuance import table as nuance_table
from hypernet.analysis.robustness import CONDITIONS, HELD_OUT, cells, half, shuffled, table, terse, with_typos
from hypernet.base_model import lora_spec
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.training.data import Instance, Task
from hypernet.training.packing import pack

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
def test_typos_and_shuffles_keep_what_is_there(text: str, seed: int) -> None:
    rng = random.Random(seed)
    assert sorted(with_typos(text, rng)) == sorted(text)
    assert sorted(shuffled(text, rng).split()) == sorted(text.split())
    assert half(text).split() == text.split()[: max(1, len(text.split()) // 2)]
    assert terse(text).split() == text.split()[:3]


def test_typos_do_happen() -> None:
    text = "Translate the given sentence from English into French."
    assert with_typos(text, random.Random(0)) != text


def test_every_condition_is_measured_where_a_task_has_it(base: FrozenBase, tiny_generator: Generator) -> None:
    found = list(cells(base, tiny_generator, tasks(), examples=3))
    assert [c.condition for c in found if c.task == "fv_1"] == list(CONDITIONS)
    assert not [c for c in found if c.task == "fv_0" and c.condition == "definition only"]
    assert found == list(cells(base, tiny_generator, tasks(), examples=3))
    shown = table(found)
    assert "| definition only | 2 |" in shown
    assert shown.count("\n") == len(CONDITIONS) + 2


def test_the_measure_is_that_of_the_adapter_alone(base: FrozenBase, tiny_generator: Generator) -> None:
    """Three texts in one batch give the mean of three single ones."""
    task = tasks()[0]
    cell = next(
        c for c in cells(base, tiny_generator, tasks(), examples=4) if c.condition == "others that it has"
    )
    row = [base.chat.example(i.input, i.output[0]) for i in task.instances]
    packed = pack([row])
    nlls = []
    with torch.inference_mode():
        for text in task.descriptions:
            logits = base.logits(packed, tiny_generator.batch(tiny_generator.embed([text])))
            nll = torch.nn.functional.cross_entropy(logits, packed.targets, reduction="none")
            nlls.append(packed.mean_per_example(nll).mean().item())
    assert cell.nll == pytest.approx(sum(nlls) / 3, rel=1e-5)
    assert cell.descriptions == 3
    assert len(set(nlls)) == 3  # the descriptions matter


def test_one_task_has_no_stranger(base: FrozenBase, tiny_generator: Generator) -> None:
    with pytest.raises(ValueError, match="at least two"):
        list(cells(base, tiny_generator, tasks()[:1]))
    assert HELD_OUT in CONDITIONS


def test_nuance_puts_answers_side_by_side(base: FrozenBase, tiny_generator: Generator) -> None:
    prompt = "a | b"
    found = answers(base, tiny_generator, prompt, ["Say it\nloud.", "Say it."], max_tokens=5)
    assert [a.description for a in found] == [None, "Say it\nloud.", "Say it."]
    alone = base.greedy([base.chat.prompt(prompt)], None, 5)[0]
    assert found[0].text == base.chat.text(alone).strip()
    lines = nuance_table(prompt, found).splitlines()
    assert lines[0] == "Prompt: a \\| b"
    assert len(lines) == 7
    assert "Say it<br>loud." in lines[5]
