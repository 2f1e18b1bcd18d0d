"""Conditions on tiny models: batches change no answer, results are reused,
skipped tasks have a reason.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from hypernet.checkpoint import ModelIdentity
from hypernet.data.tasks import Instance, Task
from hypernet.evaluation import remote, runner
from hypernet.evaluation.baselines import ArrowRouting, AverageLora, MultitaskLora, OracleLora
from hypernet.evaluation.conditions import (
    BaseModelOnly,
    Condition,
    CopyInput,
    DescriptionInPrompt,
    Hyperdecoder,
    InContextLearning,
    PromptVariant,
    mismatched_descriptions,
    t2l_conditions,
)
from hypernet.evaluation.eval_task import EvalTask, build_eval_task
from hypernet.evaluation.prompt_forms import combined
from hypernet.evaluation.results import EvalResult, ResultStore
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


EVAL_TASKS = [build_eval_task(t, n, seed=0) for t, n in zip(tasks(), (3, 5, 4), strict=True)]


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
        BaseModelOnly(),
        DescriptionInPrompt(),
        InContextLearning(),
        MultitaskLora(library.folder / "fv_0", spec),
        AverageLora(library, spec),
        ArrowRouting(library, spec),
        OracleLora(library.folder, spec),
        Hyperdecoder("h", tiny_generator),
        *t2l_conditions(
            tiny_generator,
            "t",
            mismatched_descriptions(
                {t.task: t.held_out_paraphrases for t in tasks()}, {"fv_0", "ii_2"}, seed=0
            ),
            seed=0,
        ),
    ]
    return [*found, *combined(found)]


def numbers(results: list[EvalResult]) -> dict[tuple[str, str], EvalResult]:
    return {(c.task, c.condition): c for c in results}


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, base: FrozenBase, conditions: list[Condition]
) -> dict[tuple[str, str], EvalResult]:
    return numbers(
        list(Runner(base, ResultStore(tmp_path_factory.mktemp("results")), 0).run(conditions, EVAL_TASKS))
    )


def test_every_condition_gives_a_result_for_every_task_that_it_does_not_skip(
    together: dict[tuple[str, str], EvalResult],
) -> None:
    assert len(together) == 17 * 3 - 1
    assert ("ii_2", "oracle") not in together
    result = together["lol_1", "matched"]
    assert (result.n, len(result.scores), len(result.scores[0])) == (5, 3, 5)
    assert result.nll == pytest.approx(sum(map(sum, result.nlls or [])) / 15)
    nlls = {result.nll for (task, _), result in together.items() if task == "fv_0"}
    # The oracle of fv_0 serves as the multi-task LoRA here. All other conditions must differ.
    assert len(nlls) == 16


def test_batched_results_equal_one_question_at_a_time(
    tmp_path: Path,
    base: FrozenBase,
    conditions: list[Condition],
    together: dict[tuple[str, str], EvalResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "ROW_TOKENS", 1)
    monkeypatch.setattr(runner, "BATCH_ANSWERS", 1)
    alone = numbers(list(Runner(base, ResultStore(tmp_path), 0).run(conditions, EVAL_TASKS)))
    assert alone.keys() == together.keys()
    for key, result in alone.items():
        assert result.answers == together[key].answers, key
        assert result.scores == together[key].scores, key
        assert torch.allclose(torch.tensor(result.nlls), torch.tensor(together[key].nlls), rtol=1e-3), key


def test_fuller_prompts_keep_the_adapters_of_the_condition_they_add_to(
    conditions: list[Condition], base: FrozenBase, tmp_path: Path
) -> None:
    by_name = {c.name: c for c in conditions}
    task = EVAL_TASKS[1]
    own = by_name["matched"].variants(task)
    prompted = by_name["matched_prompted"].variants(task)
    assert [v.instruction for v in prompted] == list(
        task.eval_descriptions
    )  # each adapter has its own description
    one = by_name["multitask_prompted"].variants(task)
    assert [w.instruction for w in one] == list(task.eval_descriptions)
    assert len({id(w.adapters[0]) for w in one}) == 1
    for name in ("matched_icl", "multitask_icl"):
        assert all(w.turns == task.examples and not w.instruction for w in by_name[name].variants(task))
    for plain, full in zip(own, prompted, strict=True):
        for module in plain.adapters[0].a:
            assert torch.equal(plain.adapters[0].a[module], full.adapters[0].a[module])
    keys = {Runner(base, ResultStore(tmp_path), 0).key(c, task) for c in conditions}
    assert len(keys) == len(conditions)  # no result of one is taken for another's


def test_tasks_without_examples_are_skipped_by_conditions_with_examples(conditions: list[Condition]) -> None:
    plain = Task(task="t", descriptions=["d"], instances=[Instance(input="a", output=["b"])])
    only = build_eval_task(plain, 3, seed=0)
    for condition in conditions:
        if condition.name.endswith("_icl"):
            assert "no instance is left" in condition.skip_reason(only)


class CountingCondition(Condition):
    """Counts its runs."""

    def __init__(self, name: str = "base", value: int = 0) -> None:
        super().__init__(name)
        self.value, self.runs = value, 0

    def identity(self, eval_task: EvalTask) -> int:
        return self.value

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        self.runs += 1
        return [PromptVariant()]


def test_copy_runs_no_model(tmp_path: Path, base: FrozenBase) -> None:
    runner = Runner(base, ResultStore(tmp_path), 0)
    results = list(runner.run([CopyInput()], EVAL_TASKS))
    assert [result.answers for result in results] == [
        [[sample.prompt for sample in s.samples]] for s in EVAL_TASKS
    ]
    assert all(result.nll is None for result in results)
    assert [c.answers for c in runner.run([CopyInput()], EVAL_TASKS)] == [c.answers for c in results]


def test_a_result_is_computed_once_per_content(tmp_path: Path, base: FrozenBase) -> None:
    run = Runner(base, ResultStore(tmp_path), 0)
    first = CountingCondition()
    made = list(run.run([first], EVAL_TASKS))
    assert first.runs == 3
    again = CountingCondition("empty")  # another condition, the same content
    reused = [c.model_copy(update={"condition": "base"}) for c in run.run([again], EVAL_TASKS)]
    assert numbers(reused) == numbers(made)
    assert again.runs == 0
    path = next(tmp_path.glob("fv_0.base.*.json"))
    next(tmp_path.glob("fv_0.empty.*.json")).unlink()
    path.write_text(path.read_text()[:40])  # only a damaged result is computed again
    damaged = CountingCondition()
    assert numbers(list(run.run([damaged], EVAL_TASKS))) == numbers(made)
    assert damaged.runs == 1
    for change in (CountingCondition(value=1), CountingCondition()):
        eval_tasks = [build_eval_task(t, 2, seed=0) for t in tasks()] if change.value == 0 else EVAL_TASKS
        list(run.run([change], eval_tasks))
        assert change.runs == 3  # other content or other questions are other results


def test_conditions_with_equal_inputs_share_one_run(tmp_path: Path, base: FrozenBase) -> None:
    pair = [CountingCondition(), CountingCondition("empty")]
    results = list(Runner(base, ResultStore(tmp_path), 0).run(pair, EVAL_TASKS))
    assert [c.runs for c in pair] == [3, 0]
    assert sorted(c.condition for c in results) == ["base"] * 3 + ["empty"] * 3


def test_checkpoints_share_the_results_of_the_base_model(
    base: FrozenBase, tiny_generator: Generator, conditions: list[Condition], tmp_path: Path
) -> None:
    run = Runner(base, ResultStore(tmp_path), 0)
    keys = {c.name: run.key(c, EVAL_TASKS[0]) for c in conditions}
    assert keys["multitask"] == keys["oracle"]  # the same bytes stand in for both here
    assert len(set(keys.values())) == len(keys) - 1
    for condition in (BaseModelOnly(), DescriptionInPrompt(), InContextLearning()):
        assert run.key(condition, EVAL_TASKS[0]) == keys[condition.name]


def test_another_chat_template_gives_other_keys(base: FrozenBase, tmp_path: Path) -> None:
    run = Runner(base, ResultStore(tmp_path), 0)
    before = run.key(BaseModelOnly(), EVAL_TASKS[0])
    tokenizer = base.chat._tokenizer
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = template + "{{ 'a' }}"
        assert run.key(BaseModelOnly(), EVAL_TASKS[0]) != before
    finally:
        tokenizer.chat_template = template
    assert run.key(BaseModelOnly(), EVAL_TASKS[0]) == before


def test_skipped_tasks_and_wrong_shapes_have_a_reason(
    library: Library, tiny_generator: Generator, tmp_path: Path
) -> None:
    spec = tiny_generator.spec
    assert "no LoRA" in OracleLora(library.folder, spec).skip_reason(EVAL_TASKS[2])
    plain = Task(task="t", definition="d", instances=[Instance(input="a", output=["b"])])
    only = build_eval_task(plain, 3, seed=0)
    assert "no instance is left" in InContextLearning().skip_reason(only)
    generated = {
        c.name: c
        for c in t2l_conditions(tiny_generator, "t", mismatched_descriptions({"t": ["d"]}, (), 0), seed=0)
    }
    assert "no such descriptions" in generated["mismatched"].skip_reason(only)
    assert not generated["matched"].skip_reason(only)
    other = spec.model_copy(update={"alpha": spec.alpha * 2})
    with pytest.raises(LibraryError, match="the checkpoint writes"):
        AverageLora(library, other)
    save_adapter(tmp_path / "x", LoraWeights(other, *noise_parts(tiny_generator)), "b")
    with pytest.raises(AdapterFileError, match="lora_alpha"):
        MultitaskLora(tmp_path / "x", spec)


def noise_parts(generator: Generator) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    weights = noise(generator, 9)
    return dict(weights.a), dict(weights.b)


def test_icl_has_three_turns_and_the_hyperdecoder_one_adapter_per_sample(
    tiny_generator: Generator,
) -> None:
    (variant,) = InContextLearning().variants(EVAL_TASKS[1])
    assert len(variant.turns) == 3
    assert not {i.prompt for i in EVAL_TASKS[1].samples} & {question for question, _ in variant.turns}
    (variant,) = Hyperdecoder("h", tiny_generator).variants(EVAL_TASKS[1])
    assert len(variant.adapters) == len(EVAL_TASKS[1].samples)


def test_adapters_move_to_the_device_of_the_model(tiny_generator: Generator) -> None:
    one, two = noise(tiny_generator, 1), noise(tiny_generator, 2)
    stacked = runner._stack([one, two, one], torch.bfloat16, "meta")
    assert stacked is not None
    for tensor in (*stacked.a.values(), *stacked.b.values()):
        assert (tensor.shape[0], tensor.device.type, tensor.dtype) == (3, "meta", torch.bfloat16)


def test_a_server_is_sent_the_fuller_prompt_and_the_description_of_its_adapter(
    conditions: list[Condition],
) -> None:
    by_name = {c.name: c for c in conditions}
    task = EVAL_TASKS[0]
    prompted = remote._remote_variants(by_name["matched_prompted"], task)
    assert [(variant.instruction, description) for variant, description in prompted] == [
        (d, d) for d in task.eval_descriptions
    ]
    shown = remote._remote_variants(by_name["matched_icl"], task)
    assert [(variant.turns, description) for variant, description in shown] == [
        (task.examples, d) for d in task.eval_descriptions
    ]
    assert not any(variant.adapters for variant, _ in (*prompted, *shown))  # the server makes its own
    assert remote.is_servable(by_name["matched_prompted"]) and remote.is_servable(by_name["matched_icl"])
    assert not remote.is_servable(by_name["multitask_prompted"])
