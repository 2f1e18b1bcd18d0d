"""Relations from public word data: right answers, and nothing that an evaluation task asks for."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypernet.cli import app
from hypernet.data.lexical import relate
from hypernet.data.lexical.numerals import NUMBERS
from hypernet.data.lexical.relation import inverted
from hypernet.data.tasks import Instance, Task, load_tasks

VERBS = ["walk", "make", "go", "try", "run", "carry", "swim", "argue"]
ANIMALS = ["cat", "mouse", "ox", "wolf", "fly", "horse", "emu", "goose", "ant", "fox", "pony"]


def task(name: str, pairs: list[tuple[str, str]]) -> Task:
    instances = [Instance(input=a, output=[b]) for a, b in pairs]
    return Task(task=f"fv_{name}", name=name, descriptions=["Do it."], instances=instances)


def lists(name: str, one: list[str], rest: list[str]) -> Task:
    """Every word of both often enough to be among the instances that train."""
    pairs = [(f"{w}, {a}, {b}", w) for w in one for a in rest for b in rest if a != b]
    return task(name, pairs)


WORDS = [lists("verb_v_animal_3", VERBS, ANIMALS), lists("animal_v_verb_3", ANIMALS, VERBS)]


def built(evaluation: list[Task]) -> dict[str, dict[str, str]]:
    """Name -> question -> answer."""
    return {t.name: {i.input: i.output[0] for i in t.instances} for t in relate(WORDS, evaluation)}


@pytest.fixture(scope="module")
def all_of_them() -> dict[str, dict[str, str]]:
    return built([])


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("verb-gerund", {"run": "running", "argue": "arguing"}),
        ("third_person-gerund", {"goes": "going", "carries": "carrying"}),
        ("noun-these", {"mouse": "these mice", "fly": "these flies"}),
        ("noun-indefinite", {"ant": "an ant", "wolf": "a wolf"}),
        ("first-next", {"walk": "x", "cat": "d"}),
        ("first-sound", {"emu": "vowel", "mouse": "consonant"}),
        ("state-code", {"Texas": "TX"}),
        ("month-next", {"december": "January"}),
        ("german-day", {"Montag": "Monday"}),
    ],
)
def test_answers_are_right(all_of_them: dict[str, dict[str, str]], name: str, answers: dict[str, str]) -> None:
    assert answers.items() <= all_of_them[name].items()


def test_number_words_are_right_in_several_languages() -> None:
    drawn = {t.name: {i.input: i.output[0] for i in t.instances} for t in relate([], [], instances=5000)}
    assert {drawn[f"number-{tongue}"]["21"] for tongue in ("german", "french", "spanish")} == {
        "einundzwanzig",
        "vingt et un",
        "veintiuno",
    }
    assert drawn["number-roman"]["144"] == "CXLIV" and drawn["roman-number"]["CXLIV"] == "144"
    assert drawn["number-ordinal"]["42"] == "forty-second"
    assert drawn["number-next_ten"]["90"] == "100"
    assert drawn["country-code"]["Japan"] == "JP" and drawn["german-country"]["Frankreich"] == "France"


def test_relation_with_the_answers_of_an_evaluation_task_is_not_built_under_any_name() -> None:
    unseen = task("ordinals", [(str(n), f"{n}th.") for n in range(4, 21)])
    names = built([unseen])
    assert "number-ordinal_digits" not in names and "number-ordinal" in names


def test_no_pair_of_an_evaluation_task_is_in_a_relation() -> None:
    pairs = [("5", "V"), ("10", "X"), *((str(n), "no") for n in NUMBERS if n > 100)]
    roman = built([task("few", pairs)])["number-roman"]
    assert roman and not {"5", "10"} & roman.keys()


def test_an_inverse_has_one_answer_to_each_question() -> None:
    assert inverted([("a", "x"), ("b", "x"), ("c", "y")]) == [("y", "c")]


def test_paraphrases_are_many_and_tasks_repeat_with_their_seed() -> None:
    made = relate(WORDS, [])
    assert all(t.derived and len(set(t.descriptions)) > 15 for t in made)
    assert not any("{" in text for t in made for text in t.descriptions)
    assert made == relate(WORDS, []) != relate(WORDS, [], seed=1)
    assert len({t.name for t in made}) == len(made)


def files(folder: Path) -> list[str]:
    for name in ("train", "unseen"):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(f"{t.model_dump_json()}\n" for t in WORDS)
    paths = {"--tasks": "train.jsonl.gz", "--exclude": "unseen.jsonl.gz", "--out": "new/out.jsonl.gz"}
    return ["tasks", "relate", *(part for flag, name in paths.items() for part in (flag, str(folder / name)))]


def test_relate_command_writes_a_task_file(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, files(tmp_path)).exit_code == 0
    assert {t.name for t in load_tasks(tmp_path / "new" / "out.jsonl.gz")} > {"verb-gerund", "number-roman"}


def test_without_the_libraries_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    result = CliRunner().invoke(app, files(tmp_path))
    assert result.exit_code == 2 and "lexical" in result.output
