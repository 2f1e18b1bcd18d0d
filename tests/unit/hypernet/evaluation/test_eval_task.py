"""Samples of a task: drawing, few-shot examples, grading."""

from __future__ import annotations

import pytest

from hypernet.data.tasks import Instance, Task, training_pairs, without_trained_paraphrases
from hypernet.evaluation.eval_task import build_eval_task, is_case_sensitive


def make_task(n: int = 40, name: str = "t") -> Task:
    instances = [Instance(input=f"question {i % (n - 2)}", output=[f"answer {i}", "yes"]) for i in range(n)]
    return Task(
        task=name, descriptions=["a", "b", "c", "d"], eval_descriptions=["x", "y", "z"], instances=instances
    )


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("cat", "Cat")], True),
        ([("WITTY", "w")], True),
        ([("short", "T"), *[("east", "F")] * 9], True),
        ([("short", "T"), *[("east", "F")] * 10], False),
        ([("hotel", "hotel"), ("Iris", "s"), ("cat", "gato")], False),
        ([("which is right (a) (b) (c)?", "B.")], False),
        ([("!", "?")], False),
    ],
)
def test_task_is_case_sensitive_if_only_case_changes(pairs: list[tuple[str, str]], expected: bool) -> None:
    assert is_case_sensitive([Instance(input=i, output=[o]) for i, o in pairs]) is expected


def test_copying_the_input_of_a_capitalisation_task_scores_nothing() -> None:
    words = ["cat", "red fox", "dog", "tree", "house", "sun"]
    some = Task(task="t", definition="d", instances=[Instance(input=w, output=[w.capitalize()]) for w in words])
    for sample in build_eval_task(some, 3, seed=0).samples:
        assert (sample.grade(sample.prompt), sample.grade(sample.prompt.capitalize())) == (0, 1)
        assert sample.can_stop(sample.prompt) and not sample.can_stop(sample.prompt[0].upper())


def test_descriptions_that_training_has_read_are_not_used() -> None:
    def make(**fields: object) -> Task:
        return Task.model_validate({"task": "t", "instances": [{"input": "a", "output": ["b"]}], **fields})

    trained = [make(descriptions=["old"], definition="older")]
    unseen = without_trained_paraphrases(make(descriptions=["old", "new"]), trained)
    assert unseen and unseen.held_out_paraphrases == ["new"]
    unseen = without_trained_paraphrases(make(descriptions=["new"], eval_descriptions=["older", "x"]), trained)
    assert unseen and unseen.paraphrases == ["new"]
    assert without_trained_paraphrases(make(definition="older"), trained) is None


def test_samples_are_reproducible_and_a_larger_draw_begins_with_a_smaller_one() -> None:
    small, large = build_eval_task(make_task(), 5, seed=1), build_eval_task(make_task(), 10, seed=1)
    assert [s.prompt for s in small.samples] == [s.prompt for s in large.samples][:5]
    assert small.digest == build_eval_task(make_task(), 5, seed=1).digest
    assert small.digest != build_eval_task(make_task(), 5, seed=2).digest
    assert list(small.eval_descriptions) == ["x", "y", "z"]
    assert list(small.training_descriptions) == ["a", "b", "c"]
    assert small.samples[0].grade("Yes.") == 1
    assert small.samples[0].grade("no") == 0


def test_digest_of_samples_never_changes() -> None:
    """Stored results are found by this digest: another one would throw them away."""
    assert build_eval_task(make_task(), 5, seed=1).digest == "0d1d0460072c6048"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("instances", ["all", "held-out"])
def test_few_shot_examples_are_never_samples(seed: int, instances: str) -> None:
    eval_task = build_eval_task(make_task(), 12, seed, "held-out" if instances == "held-out" else "all")
    prompts = {s.prompt for s in eval_task.samples}  # the file repeats two questions
    assert len(eval_task.examples) == 3
    assert not prompts & {question for question, _ in eval_task.examples}
    if instances == "held-out":
        training = {i.input for i in make_task().split_instances()[0]}
        assert {question for question, _ in eval_task.examples} <= training


def test_pairs_that_training_has_seen_in_other_tasks_are_not_sampled() -> None:
    def make(name: str, count: int, form: str) -> Task:
        return Task(
            task=name,
            definition="d",
            instances=[Instance(input=form.format(i), output=["YES"]) for i in range(count)],
        )

    near_duplicate, task = make("near_duplicate", 9, "Q{} "), make("t", 40, "q{}")
    pairs = training_pairs([near_duplicate])
    assert pairs == {(f"q{i}", "yes") for i in range(9) if i != 4}  # the fifth is held out there, too
    prompts = {s.prompt for s in build_eval_task(task, 40, seed=0, trained_pairs=pairs).samples}
    assert prompts and not prompts & {question for question, _ in pairs}
    everything = training_pairs([task]) | {i.pair for i in task.instances}
    assert not build_eval_task(task, 5, seed=0, trained_pairs=everything).samples


def test_small_tasks_keep_few_shot_examples() -> None:
    assert len(build_eval_task(make_task(6), 50, seed=0).samples) == 3


def test_long_questions_are_skipped_where_there_are_short_ones() -> None:
    long = Instance(input="x" * 10_000, output=["y"])
    short = Instance(input="short", output=["y"])
    some = Task(task="t", definition="d", instances=[long] * 4 + [short] * 6)
    assert {s.prompt for s in build_eval_task(some, 5, seed=0).samples} == {"short"}
    assert build_eval_task(some, 5, seed=0).examples == [("x" * 10_000, "y")]
    alone = build_eval_task(Task(task="t", definition="d", instances=[long]), 5, seed=0)
    assert len(alone.samples) == 1
    assert not alone.examples


@pytest.mark.parametrize(
    ("name", "told_only", "expected"),
    [
        ("fv_a", None, True),
        ("ii_a", None, True),
        ("lol_a", None, False),
        ("lol_a", True, True),
        ("fv_a", False, False),
    ],
)
def test_description_only_is_a_field_of_the_data(name: str, told_only: bool | None, expected: bool) -> None:
    task = make_task(name=name).model_copy(update={"told_only": told_only})
    assert build_eval_task(task, 5, seed=0).description_only is expected
