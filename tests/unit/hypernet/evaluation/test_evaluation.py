"""Parts of an evaluation that need no model: eval tasks, metrics, mismatched tasks, stored results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hypernet.data.tasks import Instance, Task, training_pairs, without_trained_paraphrases
from hypernet.evaluation.conditions import (
    MISMATCHED_TASKS,
    mismatched_descriptions,
    mismatched_tasks,
    random_strings,
)
from hypernet.evaluation.eval_task import build_eval_task, is_case_sensitive
from hypernet.evaluation.metrics import bootstrap, exact_match, exact_match_impossible, rouge_l
from hypernet.evaluation.results import EvalResult, ResultStore, read_results, results_by_folder


def task(n: int = 40, name: str = "t") -> Task:
    instances = [Instance(input=f"question {i % (n - 2)}", output=[f"answer {i}", "yes"]) for i in range(n)]
    return Task(
        task=name, descriptions=["a", "b", "c", "d"], eval_descriptions=["x", "y", "z"], instances=instances
    )


def result(**fields: object) -> EvalResult:
    values: dict[str, object] = {
        "task": "t",
        "condition": "matched",
        "system": "s",
        "metric": "exact_match",
        "base": "b",
        "seed": 0,
        "n": 2,
        "score": 0.5,
        "nll": 1.5,
        "wording_scores": [0.5],
        "scores": [[0.0, 1.0]],
        "nlls": [[1.0, 2.0]],
        "answers": [["", "é"]],
    }
    return EvalResult.model_validate(values | fields)


def test_exact_match_forgives_case_and_punctuation_only() -> None:
    assert exact_match("No", ["No."]) == 1
    assert exact_match(" the  Cat!", ["the cat", "dog"]) == 1
    assert exact_match("cat", ["the cat"]) == 0
    assert exact_match("!", ["?"]) == 0


def test_case_counts_where_it_is_asked_for() -> None:
    assert exact_match(" Cat!", ["Cat"], case_sensitive=True) == 1
    assert exact_match("cat", ["Cat"], case_sensitive=True) == 0
    assert exact_match_impossible("c", ["Cat"], case_sensitive=True)
    assert not exact_match_impossible("c", ["Cat"])
    assert not exact_match_impossible("C", ["Cat"], case_sensitive=True)


@pytest.mark.parametrize(
    ("pairs", "matters"),
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
def test_case_matters_where_it_is_all_that_changes(pairs: list[tuple[str, str]], matters: bool) -> None:
    assert is_case_sensitive([Instance(input=i, output=[o]) for i, o in pairs]) is matters


def test_copying_the_input_of_a_capitalisation_task_scores_nothing() -> None:
    words = ["cat", "red fox", "dog", "tree", "house", "sun"]
    some = Task(task="t", definition="d", instances=[Instance(input=w, output=[w.capitalize()]) for w in words])
    for sample in build_eval_task(some, 3, seed=0).samples:
        assert (sample.grade(sample.prompt), sample.grade(sample.prompt.capitalize())) == (0, 1)
        assert sample.can_stop(sample.prompt) and not sample.can_stop(sample.prompt[0].upper())


def test_rouge_takes_the_best_reference() -> None:
    assert rouge_l("a red fox", ["something else", "a red fox"]) == 1
    assert 0 < rouge_l("a red fox", ["a blue fox"]) < 1


def test_bootstrap_is_seeded_and_covers_the_mean() -> None:
    values = [0.0, 1.0, 0.5, 0.25, 0.75]
    first = bootstrap(values, seed=3)
    assert first == bootstrap(values, seed=3)
    assert first.low < first.mean < first.high
    assert bootstrap([2.0] * 4).low == bootstrap([2.0] * 4).high == 2.0


def test_ratios_weighted_by_their_divisors_are_the_ratio_of_the_sums() -> None:
    above, below = [3.0, 2.0, 0.1], [4.0, 2.0, 0.001]  # the last one alone is a ratio of 100
    found = bootstrap([a / b for a, b in zip(above, below, strict=True)], weights=below)
    assert found.mean == pytest.approx(sum(above) / sum(below))
    assert found.low < found.mean < found.high


def test_nobody_is_their_own_stranger_and_everybody_is_as_often_one() -> None:
    for n in (2, 5, 32):
        names = [f"lol_{i}" for i in range(n)]
        found = mismatched_tasks(names, seed=1)
        assert set(found) == set(names)
        assert all(
            len(set(its)) == min(MISMATCHED_TASKS, n - 1) and name not in its for name, its in found.items()
        )
        assert len(set(Counter(other for its in found.values() for other in its).values())) == 1


def test_each_stranger_lends_one_wording() -> None:
    found = mismatched_descriptions({"fv_a": ["a", "a again"], "fv_b": ["b"], "fv_c": []}, seed=0)
    assert found == {"fv_a": ["b"], "fv_b": ["a"]}


def test_tasks_that_only_a_description_tells_are_strangers_to_one_another() -> None:
    told, rest = [f"fv_{i}" for i in range(4)], [f"lol_{i}" for i in range(5)]
    for seed in range(20):
        pairs = mismatched_tasks([*rest, *told], seed)
        assert all(set(pairs[name]) == set(told) - {name} for name in told)
        assert all(set(pairs[name]) == set(rest) - {name} for name in rest)
    assert mismatched_tasks(["fv_0", "lol_0"], 0) == {"fv_0": ["lol_0"], "lol_0": ["fv_0"]}  # better than none
    assert mismatched_tasks(["fv_0"], 0) == {}


def test_wordings_that_training_has_read_are_not_asked_with() -> None:
    def made(**said: object) -> Task:
        return Task(task="t", instances=[Instance(input="a", output=["b"])], **said)

    trained = [made(descriptions=["old"], definition="older")]
    assert without_trained_paraphrases(made(descriptions=["old", "new"]), trained).held_out_paraphrases == [
        "new"
    ]
    assert without_trained_paraphrases(
        made(descriptions=["new"], eval_descriptions=["older", "x"]), trained
    ).paraphrases == ["new"]
    assert without_trained_paraphrases(made(definition="older"), trained) is None


def test_random_strings_are_as_long_as_the_real_ones() -> None:
    made = random_strings(["hello there", "x"], "seed")
    assert [len(s) for s in made] == [11, 1]
    assert made == random_strings(["hello there", "x"], "seed")


def test_an_eval_task_is_the_same_every_time_and_grows_from_its_beginning() -> None:
    small, large = build_eval_task(task(), 5, seed=1), build_eval_task(task(), 10, seed=1)
    assert [i.prompt for i in small.samples] == [i.prompt for i in large.samples][:5]
    assert (
        small.digest == build_eval_task(task(), 5, seed=1).digest != build_eval_task(task(), 5, seed=2).digest
    )
    assert (list(small.eval_descriptions), list(small.training_descriptions)) == (
        ["x", "y", "z"],
        ["a", "b", "c"],
    )
    assert small.samples[0].grade("Yes.") == 1
    assert small.samples[0].grade("no") == 0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("instances", ["all", "held-out"])
def test_examples_that_are_shown_are_never_asked(seed: int, instances: str) -> None:
    asked = build_eval_task(task(), 12, seed, "held-out" if instances == "held-out" else "all")
    prompts = {i.prompt for i in asked.samples}  # the file repeats two questions
    assert len(asked.examples) == 3
    assert not prompts & {question for question, _ in asked.examples}
    if instances == "held-out":
        seen = {i.input for i in task().split_instances()[0]}
        assert {question for question, _ in asked.examples} <= seen


def test_what_training_has_seen_in_other_tasks_is_not_asked() -> None:
    other = Task(
        task="twin", definition="d", instances=[Instance(input=f"Q{i} ", output=["YES"]) for i in range(9)]
    )
    mine = Task(
        task="t", definition="d", instances=[Instance(input=f"q{i}", output=["yes"]) for i in range(40)]
    )
    known = training_pairs([other])
    assert known == {(f"q{i}", "yes") for i in range(9) if i != 4}  # the fifth is held out there, too
    asked = {i.prompt for i in build_eval_task(mine, 40, seed=0, known=known).samples}
    assert asked and not asked & {q for q, _ in known}
    assert not build_eval_task(
        mine, 5, seed=0, known=training_pairs([mine]) | {i.pair for i in mine.instances}
    ).samples


def test_small_tasks_keep_something_to_show_and_long_questions_are_passed_over() -> None:
    assert len(build_eval_task(task(6), 50, seed=0).samples) == 3
    long = Instance(input="x" * 10_000, output=["y"])
    short = Instance(input="short", output=["y"])
    some = Task(task="t", definition="d", instances=[long] * 4 + [short] * 6)
    assert {i.prompt for i in build_eval_task(some, 5, seed=0).samples} == {"short"}
    assert build_eval_task(some, 5, seed=0).examples == [("x" * 10_000, "y")]
    alone = build_eval_task(Task(task="t", definition="d", instances=[long]), 5, seed=0)
    assert len(alone.samples) == 1
    assert not alone.examples


def test_cells_come_back_as_they_were(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "below")
    store.save(result(), "key")
    assert store.load("t", "matched", "s", "key") == result()
    assert store.load("t", "matched", "s", "other") is None
    assert store.load("t2", "matched", "s", "key") is None
    assert read_results(tmp_path) == [result()]
    assert results_by_folder(tmp_path) == {tmp_path / "below": [result()]}
    assert not list(tmp_path.rglob("*.part"))


def test_the_last_content_of_a_system_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(result(), "old")
    store.save(result(system="another"), "its")
    store.save(result(condition="training"), "old")
    store.save(result(score=1.0), "new")
    assert [(c.system, c.condition, c.score) for c in read_results(tmp_path)] == [
        ("another", "matched", 0.5),
        ("s", "matched", 1.0),
        ("s", "training", 0.5),
    ]


def test_conditions_that_come_to_the_same_share_a_cell(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(result(), "key")
    assert store.load("t", "training", "s", "key") == result(condition="training")
    assert len(read_results(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"task": "t"}', "\x00\xff"])
def test_damaged_cells_count_as_missing(tmp_path: Path, damage: str) -> None:
    store = ResultStore(tmp_path)
    store.save(result(), "key")
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage)
    assert store.load("t", "matched", "s", "key") is None
    assert read_results(tmp_path) == []
    store.save(result(), "key")
    assert store.load("t", "matched", "s", "key") == result()
