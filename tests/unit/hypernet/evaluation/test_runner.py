"""Conditions on tiny models: batched equals one at a time, cells are reused, what cannot run says why."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from hypernet.checkpoint import ModelIdentity
from hypernet.data.tasks import Instance, Task
from hypernet.evaluation import runner
from hypernet.evaluation.baselines import Average, Multitask, Oracle, Routed
from hypernet.evaluation.conditions import (
    Bare,
    Condition,
    Copied,
    Hyperdecoder,
    InContext,
    Prompted,
    Way,
    stranger_wordings,
    t2l_conditions,
)
from hypernet.evaluation.eval_task import Sheet, sheet
from hypernet.evaluation.prompt_forms import combined
from hypernet.evaluation.results import Cell, CellStore
from hypernet.evaluation.runner import Runner
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.library import Entry, Library, LibraryError
from hypernet.lora import LoraWeights
from hypernet.peft_io import AdapterFileError, save_adapter


@pytest.fixture(scope="module")
def base(tiny_base: Path, tiny_generator: Generator) -> FrozenBase:
    return FrozenBase(tiny_base, tiny_generator.spec, "cpu", torch.float32)


def tasks() -> list[Task]:
    rng = random.Random(0)
    letters = "abcdef "
    return [
        Task(
            task=f"{kind}_{t}",
            metric="rougeL" if kind == "lol" else "exact_match",
            descriptions=[f"do {kind} {t}", "please"],
            eval_descriptions=[f"say {kind}", f"{t} times", "now"],
            instances=[
                Instance(
                    input="".join(rng.choices(letters, k=rng.randint(1, 12))) + str(i), output=[f"{t}{kind}"]
                )
                for i in range(12)
            ],
        )
        for t, kind in enumerate(("fv", "lol", "ii"))
    ]


SHEETS = [sheet(t, n, seed=0) for t, n in zip(tasks(), (3, 5, 4), strict=True)]


def noise(generator: Generator, seed: int) -> LoraWeights:
    torch.manual_seed(seed)
    return LoraWeights.unflatten(generator.spec, 0.5 * torch.randn(generator.spec.num_parameters))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, base: FrozenBase, tiny_generator: Generator) -> Library:
    folder = tmp_path_factory.mktemp("library") / "oracles"
    identity = ModelIdentity(name=base.name, fingerprint=base.fingerprint)
    made = Library.open_or_create(folder, identity, tiny_generator.spec, "noise")
    entry = Entry(steps=1, loss=1.0, held_out_loss=1.0)
    made.add({task.task: (noise(tiny_generator, i), entry) for i, task in enumerate(tasks()[:2])})
    return made


@pytest.fixture(scope="module")
def conditions(tiny_generator: Generator, library: Library) -> list[Condition]:
    spec = tiny_generator.spec
    found = [
        Bare(),
        Prompted(),
        InContext(),
        Multitask(library.folder / "fv_0", spec),
        Average(library, spec),
        Routed(library, spec),
        Oracle(library.folder, spec),
        Hyperdecoder("h", tiny_generator),
        *t2l_conditions(
            tiny_generator,
            "t",
            stranger_wordings({t.task: t.held_out_paraphrases for t in tasks()}, seed=0),
            seed=0,
        ),
    ]
    return [*found, *combined(found)]


def numbers(cells: list[Cell]) -> dict[tuple[str, str], Cell]:
    return {(c.task, c.condition): c for c in cells}


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, base: FrozenBase, conditions: list[Condition]
) -> dict[tuple[str, str], Cell]:
    return numbers(list(Runner(base, CellStore(tmp_path_factory.mktemp("cells")), 0).run(conditions, SHEETS)))


def test_every_condition_gives_a_cell_for_every_task_it_can(together: dict[tuple[str, str], Cell]) -> None:
    assert len(together) == 17 * 3 - 1
    assert ("ii_2", "oracle") not in together
    cell = together["lol_1", "matched"]
    assert (cell.n, len(cell.scores), len(cell.scores[0])) == (5, 3, 5)
    assert cell.nll == pytest.approx(sum(map(sum, cell.nlls or [])) / 15)
    nlls = {cell.nll for (task, _), cell in together.items() if task == "fv_0"}
    # The oracle of fv_0 is what stands in for the multi-task LoRA; all else must differ.
    assert len(nlls) == 16


def test_batched_cells_equal_one_question_at_a_time(
    tmp_path: Path,
    base: FrozenBase,
    conditions: list[Condition],
    together: dict[tuple[str, str], Cell],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "ROW_TOKENS", 1)
    monkeypatch.setattr(runner, "BATCH_ANSWERS", 1)
    alone = numbers(list(Runner(base, CellStore(tmp_path), 0).run(conditions, SHEETS)))
    assert alone.keys() == together.keys()
    for key, cell in alone.items():
        assert cell.answers == together[key].answers, key
        assert cell.scores == together[key].scores, key
        assert torch.allclose(torch.tensor(cell.nlls), torch.tensor(together[key].nlls), rtol=1e-3), key


def test_fuller_prompts_keep_the_adapters_of_the_condition_they_add_to(
    conditions: list[Condition], base: FrozenBase, tmp_path: Path
) -> None:
    by_name = {c.name: c for c in conditions}
    task = SHEETS[1]
    own = by_name["matched"].ways(task)
    told = by_name["matched_prompted"].ways(task)
    assert [w.head for w in told] == list(task.held_out)  # each adapter has its own description
    one = by_name["multitask_prompted"].ways(task)
    assert [w.head for w in one] == list(task.held_out)
    assert len({id(w.adapters[0]) for w in one}) == 1
    for name in ("matched_icl", "multitask_icl"):
        assert all(w.turns == task.examples and not w.head for w in by_name[name].ways(task))
    for plain, full in zip(own, told, strict=True):
        for module in plain.adapters[0].a:
            assert torch.equal(plain.adapters[0].a[module], full.adapters[0].a[module])
    keys = {Runner(base, CellStore(tmp_path), 0).key(c, task) for c in conditions}
    assert len(keys) == len(conditions)  # no cell of one is taken for another's


def test_what_no_example_is_left_of_is_not_asked_behind_examples(conditions: list[Condition]) -> None:
    plain = Task(task="t", descriptions=["d"], instances=[Instance(input="a", output=["b"])])
    only = sheet(plain, 3, seed=0)
    for condition in conditions:
        if condition.name.endswith("_icl"):
            assert "no instance is left" in condition.lacks(only)


class Counted(Condition):
    """Counts how often it is run."""

    def __init__(self, name: str = "base", value: int = 0) -> None:
        super().__init__(name)
        self.value, self.runs = value, 0

    def identity(self, sheet: Sheet) -> int:
        return self.value

    def ways(self, sheet: Sheet) -> list[Way]:
        self.runs += 1
        return [Way()]


def test_copying_needs_no_model(tmp_path: Path, base: FrozenBase) -> None:
    runner = Runner(base, CellStore(tmp_path), 0)
    cells = list(runner.run([Copied()], SHEETS))
    assert [cell.answers for cell in cells] == [[[item.prompt for item in s.items]] for s in SHEETS]
    assert all(cell.nll is None for cell in cells)
    assert [c.answers for c in runner.run([Copied()], SHEETS)] == [c.answers for c in cells]


def test_cells_are_made_once_by_content(tmp_path: Path, base: FrozenBase) -> None:
    run = Runner(base, CellStore(tmp_path), 0)
    first = Counted()
    made = list(run.run([first], SHEETS))
    assert first.runs == 3
    again = Counted("empty")  # another condition, the same content
    reused = [c.model_copy(update={"condition": "base"}) for c in run.run([again], SHEETS)]
    assert numbers(reused) == numbers(made)
    assert again.runs == 0
    path = next(tmp_path.glob("fv_0.base.*.json"))
    next(tmp_path.glob("fv_0.empty.*.json")).unlink()
    path.write_text(path.read_text()[:40])  # a damaged cell is made again, the others are not
    damaged = Counted()
    assert numbers(list(run.run([damaged], SHEETS))) == numbers(made)
    assert damaged.runs == 1
    for change in (Counted(value=1), Counted()):
        sheets = [sheet(t, 2, seed=0) for t in tasks()] if change.value == 0 else SHEETS
        list(run.run([change], sheets))
        assert change.runs == 3  # other content or other questions are other cells


def test_conditions_that_agree_share_one_run(tmp_path: Path, base: FrozenBase) -> None:
    pair = [Counted(), Counted("empty")]
    cells = list(Runner(base, CellStore(tmp_path), 0).run(pair, SHEETS))
    assert [c.runs for c in pair] == [3, 0]
    assert sorted(c.condition for c in cells) == ["base"] * 3 + ["empty"] * 3


def test_a_second_checkpoint_shares_the_cells_of_the_base_model(
    base: FrozenBase, tiny_generator: Generator, conditions: list[Condition], tmp_path: Path
) -> None:
    run = Runner(base, CellStore(tmp_path), 0)
    keys = {c.name: run.key(c, SHEETS[0]) for c in conditions}
    assert keys["multitask"] == keys["oracle"]  # the same bytes stand in for both here
    assert len(set(keys.values())) == len(keys) - 1
    for condition in (Bare(), Prompted(), InContext()):
        assert run.key(condition, SHEETS[0]) == keys[condition.name]


def test_another_chat_template_makes_other_cells(base: FrozenBase, tmp_path: Path) -> None:
    run = Runner(base, CellStore(tmp_path), 0)
    before = run.key(Bare(), SHEETS[0])
    tokenizer = base.chat._tokenizer
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = template + "{{ 'a' }}"
        assert run.key(Bare(), SHEETS[0]) != before
    finally:
        tokenizer.chat_template = template
    assert run.key(Bare(), SHEETS[0]) == before


def test_what_cannot_run_says_why(library: Library, tiny_generator: Generator, tmp_path: Path) -> None:
    spec = tiny_generator.spec
    assert "no LoRA" in Oracle(library.folder, spec).lacks(SHEETS[2])
    plain = Task(task="t", definition="d", instances=[Instance(input="a", output=["b"])])
    only = sheet(plain, 3, seed=0)
    assert "no instance is left" in InContext().lacks(only)
    written = {
        c.name: c for c in t2l_conditions(tiny_generator, "t", stranger_wordings({"t": ["d"]}, 0), seed=0)
    }
    assert "no such descriptions" in written["mismatched"].lacks(only)
    assert not written["matched"].lacks(only)
    other = spec.model_copy(update={"alpha": spec.alpha * 2})
    with pytest.raises(LibraryError, match="the checkpoint writes"):
        Average(library, other)
    save_adapter(tmp_path / "x", LoraWeights(other, *noise_parts(tiny_generator)), "b")
    with pytest.raises(AdapterFileError, match="lora_alpha"):
        Multitask(tmp_path / "x", spec)


def noise_parts(generator: Generator) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    weights = noise(generator, 9)
    return dict(weights.a), dict(weights.b)


def test_icl_shows_three_solved_turns_and_the_hyperdecoder_writes_one_adapter_a_question(
    tiny_generator: Generator,
) -> None:
    (way,) = InContext().ways(SHEETS[1])
    assert len(way.turns) == 3
    assert not {i.prompt for i in SHEETS[1].items} & {question for question, _ in way.turns}
    (way,) = Hyperdecoder("h", tiny_generator).ways(SHEETS[1])
    assert len(way.adapters) == len(SHEETS[1].items)


def test_adapters_from_disk_go_where_the_model_is(tiny_generator: Generator) -> None:
    one, two = noise(tiny_generator, 1), noise(tiny_generator, 2)
    stacked = runner._stack([one, two, one], torch.bfloat16, "meta")
    assert stacked is not None
    for tensor in (*stacked.a.values(), *stacked.b.values()):
        assert (tensor.shape[0], tensor.device.type, tensor.dtype) == (3, "meta", torch.bfloat16)
