"""Batches with mixed prompts: contents of rows, and unchanged batches of earlier configurations."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from hypernet.base_model import lora_spec
from hypernet.data.tasks import Instance, Task
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.packing import Example, num_answers, pack
from hypernet.prompts import with_description
from hypernet.training.batches import Batches, few_shot
from hypernet.training.config import MultitaskConfig, SftConfig, TrainingConfigError, load_config
from hypernet.training.description_noise import add_noise
from hypernet.training.groups import group_of, input_shape
from hypernet.training.loop import StepResult, Trainer
from hypernet.training.losses import example_nll
from hypernet.training.sft import SftRun, sft_data
from hypernet.training.static_lora import MultitaskRun
from hypernet.training.training_tasks import TrainingTask, draw_row, draw_weights, prepare_all
from hypernet.training.validation import near_duplicates, split_tasks
from tests.unit.hypernet.training.test_sft import run

WORDS = ("cup", "dog", "sun", "tree", "fish", "bell", "coin", "lamp", "moon", "seed", "leaf", "rope", "milk")


def make(name: str, answer: str, group: str = "", words: tuple[str, ...] = WORDS) -> Task:
    instances = [Instance(input=w, output=[f"{answer}{w[0]}"]) for w in words]
    return Task(task=name, descriptions=[f"Say {answer} first."], instances=instances, group=group)


@pytest.fixture(scope="module")
def frozen(tiny_base: Path) -> FrozenBase:
    return FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)


@pytest.fixture
def tasks(frozen: FrozenBase) -> list[TrainingTask]:
    return prepare_all([make("red", "r"), make("blue", "b"), make("green", "g")], frozen.chat, 1000)


def config(**changes: object) -> MultitaskConfig:
    return MultitaskConfig.model_validate({"rows": 6, "row_tokens": 90, "row_examples": 4, **changes})


def prompt_text(frozen: FrozenBase, example: Example) -> str:
    return "".join(frozen.chat._tokenizer.convert_ids_to_tokens(example.prompt))


def test_bare_batches_equal_those_before_mixed_prompts(frozen: FrozenBase, tasks: list[TrainingTask]) -> None:
    settings = config(seed=3)
    batches = Batches(tasks, settings, frozen.chat)
    for number in range(5):
        rng = random.Random(f"3:{number}")
        chosen = rng.choices(tasks, draw_weights(tasks, 0.5, 0.25), k=6)
        rows = [draw_row(t, rng, settings) for t in chosen]
        descriptions = [rng.choice(t.paraphrases) for t in chosen]
        batch = batches.draw(number)
        assert (batch.tasks, batch.rows, batch.descriptions) == (chosen, rows, descriptions)


def test_a_description_in_the_prompt_is_the_one_the_hypernetwork_reads(
    frozen: FrozenBase, tasks: list[TrainingTask]
) -> None:
    batch = Batches(tasks, config(prompt_shares={"description": 1}), frozen.chat).draw(0)
    for description, row in zip(batch.descriptions, batch.rows, strict=True):
        for example in row:
            assert example.prompt == frozen.chat.prompt(f"{description}\n\n{example.text}")


def test_rows_with_examples_never_show_their_own_question(
    frozen: FrozenBase, tasks: list[TrainingTask]
) -> None:
    batches = Batches(tasks, config(prompt_shares={"examples": 1}, row_tokens=120), frozen.chat)
    shown = set()
    for number in range(20):
        batch = batches.draw(number)
        for task, row in zip(batch.tasks, batch.rows, strict=True):
            assert len(row[0].earlier) >= 1
            shown.add(len(row[0].earlier))
            for example in row:
                text = prompt_text(frozen, example)
                assert text.count(f"<user>{example.text}") == 1
                turns = [turn.split("<answer>")[0] for turn in text.split("<user>")[1:]]
                assert set(turns) <= {e.text for e in task.examples}  # the held-out ones are never shown
    assert shown == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("form", ["description", "examples"])
def test_rows_keep_to_their_budget_whatever_the_prompt_holds(
    frozen: FrozenBase, tasks: list[TrainingTask], form: str
) -> None:
    for budget in (12, 30, 50, 100):
        packed = [
            pack(
                Batches(tasks, config(prompt_shares={form: 1}, row_tokens=budget), frozen.chat).draw(n).rows, 1
            )
            for n in range(5)
        ]
        assert max(p.tokens.shape[1] for p in packed) <= budget


def test_answers_of_earlier_turns_have_their_separate_likelihoods(
    frozen: FrozenBase, tasks: list[TrainingTask]
) -> None:
    """Each earlier answer has the likelihood that it has behind the turns before it."""
    shots, questions = tasks[0].examples[:3], tasks[0].examples[3:5]
    before = [(s.text, s.answer) for s in shots]
    row = few_shot(questions, shots, frozen.chat)
    earlier = frozen.chat.earlier(row[0].prompt, before)
    assert len(earlier) == 3
    learnt = [Example(e.prompt, e.response, e.text, e.answer, earlier) for e in row]
    packed = pack([learnt])
    assert num_answers(learnt) == len(packed.example_rows) == 5
    together = example_nll(frozen.logits(packed, None), packed)  # [5]: three shots, two questions
    alone = [
        [Example(frozen.chat.prompt(t, before[:i]), frozen.chat.response(a))] for i, (t, a) in enumerate(before)
    ]
    parts = pack([*alone, *([e] for e in row)])
    torch.testing.assert_close(together, example_nll(frozen.logits(parts, None), parts), rtol=1e-4, atol=1e-4)


def test_forms_of_prompt_have_the_configured_shares(frozen: FrozenBase, tasks: list[TrainingTask]) -> None:
    shares = {"bare": 0.5, "description": 0.25, "examples": 0.25}
    batches = Batches(tasks, config(prompt_shares=shares, rows=40, row_tokens=200), frozen.chat)
    counts = {"bare": 0, "description": 0, "examples": 0}
    for number in range(25):
        batch = batches.draw(number)
        for description, row in zip(batch.descriptions, batch.rows, strict=True):
            described = row[0].prompt == frozen.chat.prompt(with_description(description, row[0].text))
            counts["examples" if row[0].earlier else "description" if described else "bare"] += 1
    assert counts["bare"] == pytest.approx(500, abs=60)
    assert counts["description"] == pytest.approx(250, abs=50)
    assert counts["examples"] == pytest.approx(250, abs=50)


def test_tasks_over_the_same_inputs_share_a_batch_and_its_inputs(frozen: FrozenBase) -> None:
    long = tuple(f"{word} " + "and so on " * 9 for word in WORDS)
    others = [make(f"alone{i}", "x", words=long) for i in range(8)]
    siblings = [make(f"word{i}", "abcdef"[i], group="word") for i in range(6)]
    ready = prepare_all([*others, *siblings], frozen.chat, 1000)
    batches = Batches(ready, config(same_group=0.5, rows=8, row_tokens=400), frozen.chat)
    plain = Batches(ready, config(rows=8, row_tokens=400), frozen.chat)
    for number in range(20):
        batch = batches.draw(number)
        assert any(t.group for t in plain.draw(number).tasks)
        inputs_of_rows = Counter(
            tuple(e.text for e in row) for t, row in zip(batch.tasks, batch.rows, strict=True) if t.group
        )
        inputs, count = inputs_of_rows.most_common(1)[0]
        assert count >= 4  # half of the rows have the same inputs
        rows = [row for row in batch.rows if tuple(e.text for e in row) == inputs]
        assert len({row[0].answer for row in rows}) >= 4  # and different answers


def test_tasks_without_a_named_group_are_grouped_by_the_shape_of_their_inputs(frozen: FrozenBase) -> None:
    assert input_shape("7 cups, 2 small forks") == "9 w, 9 w+"
    assert input_shape("x" * 81) == ""
    lists = tuple(f"{a}, {b}" for a, b in pairwise(WORDS))
    ready = prepare_all(
        [make("a", "a", words=lists), make("b", "b", words=lists[::-1]), make("c", "c", group="own")],
        frozen.chat,
        1000,
    )
    assert [group_of(t) for t in ready] == ["shape w, w", "shape w, w", "own"]


def test_group_balance_lowers_the_share_of_large_groups(frozen: FrozenBase) -> None:
    ready = prepare_all(
        [make("lone", "x"), *(make(f"m{i}", "x", "many") for i in range(16))], frozen.chat, 1000
    )
    for balance, expected in ((0.0, 16.0), (0.5, 4.0), (1.0, 1.0)):
        single, *many = draw_weights(ready, 0.5, 0.25, balance)
        assert sum(many) / single == pytest.approx(expected)


def test_multitask_run_has_the_batches_of_the_hypernetworks_run(
    frozen: FrozenBase, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "steps": 1,
        "rank": 2,
        "alpha": 4,
        "rows": 4,
        "prompt_shares": {"bare": 1, "description": 1, "examples": 1},
        "description_noise": 0.5,
        "same_group": 0.5,
        "validation_share": 0.3,
    }
    given = [make(f"t{i}", "abcdefgh"[i]) for i in range(8)]
    small = {"latent_size": 16, "head_input_size": 16}
    settings = SftConfig(**changes, **small)
    data = sft_data(given, settings, frozen)
    sft = SftRun(settings, data, frozen, Encoder.load(str(tiny_encoder)))  # type: ignore[arg-type]
    lora = MultitaskRun(MultitaskConfig(**changes), data, frozen)  # type: ignore[arg-type]
    for number in range(3):
        assert sft.batches.draw(number).rows == lora.batches.draw(number).rows
        assert sft.step(number).metrics["nll"] > 0
    for scores in (sft.validate(), lora.validate()):
        assert next(iter(scores)) == "validation_nll"  # bare prompts choose the checkpoint
        assert {"validation_nll_description", "validation_nll_examples"} <= set(scores)
        assert all(value > 0 for value in scores.values())


def test_a_run_with_bare_prompts_validates_as_before(frozen: FrozenBase, tiny_encoder: Path) -> None:
    assert set(run(frozen, tiny_encoder, validation_share=0.9).validate()) == {
        "validation_nll",
        "validation_nll_mismatched",
    }


def test_noise_changes_descriptions_a_little() -> None:
    text = "Give the plural of the noun."
    rough = {add_noise(text, random.Random(i)) for i in range(200)}
    assert len(rough) > 50
    assert text.lower() in {r.lower() for r in rough}
    assert any(r.startswith("Please give the plural") for r in rough)
    assert all(len(r) < 2 * len(text) for r in rough)
    assert all(add_noise("x", random.Random(i)) is not None for i in range(50))


def test_near_duplicates_of_validation_tasks_are_found_by_their_answers() -> None:
    capital = make("capital", "c")
    again = make("built_anew", "c", words=WORDS[:8]).model_copy(update={"derived": True})
    other = make("other", "o")
    few = make("few", "c", words=WORDS[:2])
    assert near_duplicates([again, other, few], [capital]) == {"built_anew": "capital"}


def test_groups_validate_as_a_whole_and_near_duplicates_do_not_train() -> None:
    given = [make(f"{g}{i}", f"{g}{i}", group=g) for g in "abcdefghij" for i in range(4)]
    settings = config(validation_share=0.3, drop_near_duplicates=True)
    split = split_tasks(given, settings)
    training, validation = split.training, split.validation
    assert training and validation
    assert not {t.group for t in training} & {t.group for t in validation}
    double = validation[0].model_copy(update={"task": "double", "group": "", "derived": True})
    assert "double" not in {t.task for t in split_tasks([*given, double], settings).training}


def test_shares_of_prompts_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    for text in ("{bare: -1, examples: 2}", "{bare: 0}", "{naked: 1}"):
        path = tmp_path / "c.yaml"
        path.write_text(f"steps: 1\nprompt_shares: {text}\n")
        with pytest.raises(TrainingConfigError, match="prompt_shares"):
            load_config(SftConfig, path)


def test_configurations_written_before_mixed_prompts_train_on_bare_ones() -> None:
    for path in Path("hypernet/configs").glob("*.yaml"):
        if path.name != "l-sft-mixed.yaml" and "recon" not in path.stem:
            settings = load_config(SftConfig, path)
            assert settings.prompt_shares == {"bare": 1.0}, path
            assert not (settings.same_group or settings.description_noise or settings.drop_near_duplicates)
    mixed = load_config(MultitaskConfig, Path("hypernet/configs/l-sft-mixed.yaml"))
    assert mixed.prompt_shares == {"bare": 0.5, "description": 0.25, "examples": 0.25}


def test_a_state_file_written_before_mixed_prompts_is_resumed(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    state = {"step": 5, "seconds": 7.5, "best": 1.25}
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state},
        tmp_path / "state.pt",
    )

    def compute(number: int) -> StepResult:
        return StepResult(trainer.model(torch.ones(1, 2)).square().mean(), 2, {"at": float(number)})

    trainer = Trainer(
        tmp_path, nn.Linear(2, 1), SftConfig(steps=7), compute, lambda: {"v": 2.0}, lambda *_: None
    )
    assert trainer.resume()
    assert torch.equal(trainer.model.weight, model.weight)  # type: ignore[arg-type]
    final = trainer.run()
    assert (final.step, final.best) == (7, 1.25)
