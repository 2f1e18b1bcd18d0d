"""Mismatched tasks and random descriptions."""

from __future__ import annotations

from collections import Counter

from hypernet.evaluation.conditions import (
    NUM_MISMATCHED,
    mismatched_descriptions,
    mismatched_tasks,
    random_strings,
)


def test_each_task_is_mismatched_with_others_equally_often() -> None:
    for n in (2, 5, 32):
        names = [f"t{i}" for i in range(n)]
        chosen = mismatched_tasks(names, (), seed=1)
        assert set(chosen) == set(names)
        assert all(len(set(others)) == min(NUM_MISMATCHED, n - 1) for others in chosen.values())
        assert all(name not in others for name, others in chosen.items())
        assert len(set(Counter(other for others in chosen.values() for other in others).values())) == 1


def test_each_mismatched_task_gives_one_description() -> None:
    chosen = mismatched_descriptions({"a": ["a", "a again"], "b": ["b"], "c": []}, (), seed=0)
    assert chosen == {"a": ["b"], "b": ["a"]}


def test_description_only_tasks_are_mismatched_with_one_another() -> None:
    told_only, rest = [f"x{i}" for i in range(4)], [f"y{i}" for i in range(5)]
    for seed in range(20):
        chosen = mismatched_tasks([*rest, *told_only], told_only, seed)
        assert all(set(chosen[name]) == set(told_only) - {name} for name in told_only)
        assert all(set(chosen[name]) == set(rest) - {name} for name in rest)


def test_a_single_description_only_task_is_mismatched_with_the_rest() -> None:
    assert mismatched_tasks(["x", "y"], ["x"], 0) == {"x": ["y"], "y": ["x"]}
    assert mismatched_tasks(["x"], ["x"], 0) == {}


def test_random_strings_have_the_lengths_of_the_descriptions() -> None:
    made = random_strings(["hello there", "x"], "seed")
    assert [len(s) for s in made] == [11, 1]
    assert made == random_strings(["hello there", "x"], "seed")
