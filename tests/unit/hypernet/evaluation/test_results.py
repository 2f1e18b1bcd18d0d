"""Results on disk: stored, shared, replaced, damaged, and written by an earlier version."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hypernet.evaluation.eval_task import EvalTask
from hypernet.evaluation.report import tables
from hypernet.evaluation.results import (
    EvalResult,
    ResultStore,
    damaged_results,
    read_results,
    results_by_folder,
)
from tests.support.eval_results import make_result

KEY = "0123456789abcdef"
STORED = Path(__file__).parent / "data/stored_results"
"""Written by the version before `told_only`: two tasks under `base` and `matched`."""


def eval_task(name: str = "t", description_only: bool = False) -> EvalTask:
    return EvalTask(name, "exact_match", (), (), ("d",), ("d",), description_only=description_only)


def make(**fields: object) -> EvalResult:
    return make_result(told_only=False, **fields)


def test_a_stored_result_is_loaded_unchanged(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "below")
    store.save(make(), KEY)
    assert store.load(eval_task(), "matched", "s", KEY) == make()
    assert store.load(eval_task(), "matched", "s", "other") is None
    assert store.load(eval_task("t2"), "matched", "s", KEY) is None
    assert read_results(tmp_path) == [make()]
    assert results_by_folder(tmp_path) == {tmp_path / "below": [make()]}
    assert not list(tmp_path.rglob("*.part"))


def test_other_users_can_read_results(tmp_path: Path) -> None:
    ResultStore(tmp_path).save(make(), KEY)
    (path,) = tmp_path.glob("*.json")
    assert path.stat().st_mode & stat.S_IROTH


@pytest.mark.parametrize("name", ["a/b", "../up", "a.b", "[x]*", "größe"])
def test_any_task_name_can_be_stored(tmp_path: Path, name: str) -> None:
    store = ResultStore(tmp_path / "below")
    store.save(make(task=name), KEY)
    assert store.load(eval_task(name), "matched", "s", KEY) == make(task=name)
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "below"}


def test_a_system_keeps_its_newest_result_only(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(make(), "old")
    store.save(make(system="another"), "its")
    store.save(make(condition="training"), "old")
    store.save(make(score=1.0), "new")
    assert [(r.system, r.condition, r.score) for r in read_results(tmp_path)] == [
        ("another", "matched", 0.5),
        ("s", "matched", 1.0),
        ("s", "training", 0.5),
    ]


def test_conditions_with_equal_inputs_share_a_result(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(make(), KEY)
    assert store.load(eval_task(), "training", "s", KEY) == make(condition="training")
    assert len(read_results(tmp_path)) == 2
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for condition in ("training", "matched"):
        assert store.load(eval_task(), condition, "s", KEY) == make(condition=condition)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"task": "t"}', "\x00\xff"])
def test_a_damaged_result_counts_as_missing(tmp_path: Path, damage: str) -> None:
    store = ResultStore(tmp_path)
    store.save(make(), KEY)
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage)
    assert store.load(eval_task(), "matched", "s", KEY) is None
    assert read_results(tmp_path) == []
    assert damaged_results(tmp_path) == [path]
    store.save(make(), KEY)
    assert store.load(eval_task(), "matched", "s", KEY) == make()
    assert damaged_results(tmp_path) == []


def test_an_unwritable_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        ResultStore(tmp_path / "file" / "below")


def test_results_of_an_earlier_version_are_read() -> None:
    results = read_results(STORED)
    assert [(r.task, r.condition, r.description_only) for r in results] == [
        ("fv_a", "base", True),
        ("fv_a", "matched", True),
        ("lol_c", "base", False),
        ("lol_c", "matched", False),
    ]
    assert "| base model | 6.39 [6.05, 6.72] |" in tables(results)
    assert "where only the description tells (1 tasks)" in tables(results)


def test_results_of_an_earlier_version_are_not_computed_again(tmp_path: Path) -> None:
    for path in STORED.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    task = eval_task("fv_a", description_only=True)
    loaded = ResultStore(tmp_path).load(task, "base", "", "4e2881efee56512e")
    assert loaded and loaded.told_only is True
    assert loaded in read_results(tmp_path)


def test_description_only_is_a_field_of_the_result() -> None:
    assert make_result(task="lol_a", told_only=True).description_only
    assert not make_result(task="fv_a", told_only=False).description_only
    assert make_result(task="fv_a").description_only
