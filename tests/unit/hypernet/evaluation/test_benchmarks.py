"""The ten benchmarks from small files: prompts, labels, numbers and programs are read as they should be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hypernet.evaluation.benchmarks import (
    STYLES,
    BenchmarkError,
    Question,
    code_of,
    last_number,
    load_benchmarks,
)
from hypernet.evaluation.eval_task import Item, Sheet

ROWS: dict[str, dict[str, Any]] = {
    "arc_challenge": {"question": "Which is a gas?", "choices": ["iron", "air", "ice"], "answer_index": 1},
    "arc_easy": {
        "question": "Which is hot?",
        "choices": ["fire", "ice", "snow", "rain", "hail"],
        "answer_index": 0,
    },
    "boolq": {"question": "is it", "context": "It is.", "choices": ["false", "true"], "answer": "true"},
    "gsm8k": {"question": "2 and 3?", "answer": "1,205", "rationale": "It is 1,205.\n#### 1,205"},
    "hellaswag": {"question": "He sat", "choices": ["up", "down", "in", "by"], "answer_index": 3},
    "humaneval": {
        "question": 'import math\n\ndef f(x):\n    """Root."""\n',
        "answer": "    return math.sqrt(x)\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    },
    "mbpp": {
        "question": "Add one.",
        "answer": "def g(x):\n    return x + ONE",
        "test": "assert g(1) == 2",
        "test_setup": "ONE = 1",
    },
    "openbookqa": {"question": "Sun is", "choices": ["hot", "cold", "wet", "far"], "answer_index": 0},
    "piqa": {"question": "To cut", "choices": ["knife", "spoon"], "answer_index": 0},
    "winogrande": {"question": "_ won.", "choices": ["Al", "Bo"], "answer_index": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    wordings = {}
    for name, row in ROWS.items():
        rows = [{"answer": "", **row, "question": "\n" * i + row["question"]} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if name not in ("humaneval", "piqa", "winogrande"):
            shown = [{**rows[0], "question": f"Another {i}"} for i in range(5)]
            (tmp_path / f"{name}.train.jsonl").write_text(
                "".join(json.dumps(r) + "\n" for r in [*shown, rows[0]])
            )
        wordings[name] = {
            "train_descriptions": ["t1", "t2", "t3", "t4"],
            "eval_descriptions": ["e1", "e2", "e3"],
        }
    (tmp_path / "descriptions.json").write_text(json.dumps(wordings))
    return tmp_path


@pytest.fixture
def sheets(folder: Path) -> dict[str, Sheet]:
    return {s.task: s for s in load_benchmarks(folder, 4, seed=0)}


def item(sheets: dict[str, Sheet], name: str) -> Item:
    return sheets[name].items[0]


def test_all_ten_are_loaded_and_examples_are_never_asked(sheets: dict[str, Sheet]) -> None:
    assert set(sheets) == set(STYLES) == set(ROWS)
    for name, sheet in sheets.items():
        assert len(sheet.items) == 4
        assert (list(sheet.held_out), list(sheet.training)) == (["e1", "e2", "e3"], ["t1", "t2", "t3"])
        assert len(sheet.examples) == (0 if name in ("humaneval", "piqa", "winogrande") else 3)
        asked = {i.prompt for i in sheet.items}
        assert not asked & {question for question, _ in sheet.examples}
        assert all(answer.startswith(sheet.opening) for _, answer in sheet.examples)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        (
            "arc_challenge",
            ["B", "b.", " B: air", "(B) air", "**B**", "B \nair"],
            ["A", "air", "Bats", "", "D", "B air"],
        ),
        ("arc_easy", ["A", "A. fire"], ["E", "An option", "A plant", "A, B or C", "A-frame", "A's"]),
        ("hellaswag", ["3", "3: by"], ["30", "0", "by", "3 cups", "3.5 cups", "3/4"]),
        ("openbookqa", ["A"], ["Ants"]),
        ("piqa", ["0", "`0`"], ["1", "01"]),
        ("winogrande", ["2"], ["1", "0", "Bo"]),
        ("boolq", ["true", "Yes, it is.", "**TRUE**"], ["false", "no", "untrue", "", "maybe", "It is true"]),
        ("gsm8k", ["2 * 3 ... so 1205", "$1,205.00.", "#### 1,205"], ["1206", "none", "1205 or 7"]),
    ],
)
def test_answers_are_read_as_labels_words_and_numbers(
    sheets: dict[str, Sheet], name: str, right: list[str], wrong: list[str]
) -> None:
    one = item(sheets, name)
    for answer in right + wrong:
        assert one.grade(answer) == (answer in right), answer
        # an answer that is called settled keeps its score, whatever comes after
        beginnings = [answer[:n] for n in range(len(answer) + 1)]
        for beginning in filter(one.settled, beginnings):
            assert one.grade(beginning) == one.grade(answer), (beginning, answer)


def test_a_no_among_other_words_is_no_answer() -> None:
    question = Question(question="is it", answer="false")
    for answer, score in (("No.", 1), ("false", 1), ("There is no evidence", 0), ("Not false", 0)):
        assert STYLES["boolq"].grade(question, answer) == score


def test_options_stand_in_the_prompt_with_the_labels_that_there_are(sheets: dict[str, Sheet]) -> None:
    assert "A: iron\nB: air\nC: ice\n" in item(sheets, "arc_challenge").prompt
    assert "one of A, B, C and" in item(sheets, "arc_challenge").prompt
    assert "E: hail" in item(sheets, "arc_easy").prompt
    assert item(sheets, "winogrande").gold == "2"
    assert item(sheets, "gsm8k").gold is item(sheets, "mbpp").gold is None


def test_programs_are_run_against_their_tests(sheets: dict[str, Sheet]) -> None:
    human = item(sheets, "humaneval")
    assert human.grade("    return math.sqrt(x)\n```\nIt takes the root.") == 1
    assert human.grade("def f(x):\n    return x ** 0.5\n```\n") == 1
    assert human.grade("def f(x):\n    return x\n```") == 0
    assert human.grade("import sys; sys.exit(0)\ndef f(x): pass") == 0
    assert human.settled("    return 1\n```")
    assert not human.settled("    return 1\n")
    basic = item(sheets, "mbpp")
    assert basic.grade("def g(x):\n    return x + 1\n```") == 1
    assert basic.grade("```python\ndef g(x):\n    return x + 1\n```") == 1
    assert basic.grade("") == 0


def test_code_and_numbers() -> None:
    assert code_of("x = 1\n```\ntext") == "x = 1\n"
    assert code_of("\n```python\nx = 2\n```\nmore").strip() == "x = 2"
    assert code_of("x = 3") == "x = 3"
    assert last_number("so 1,200 cents, or $12.50.") == 12.5
    assert last_number("minus -3 degrees") == -3
    assert last_number("none") is None


def test_a_folder_of_some_is_enough_for_those(folder: Path) -> None:
    rows = (folder / "gsm8k.jsonl").read_bytes()
    for path in folder.glob("*.jsonl"):
        path.unlink()
    (folder / "gsm8k.jsonl.gz").write_bytes(gzip.compress(rows))
    (sheet,) = load_benchmarks(folder, 4, 0, ["gsm8k"])
    assert sheet.task == "gsm8k" and sheet.items
    with pytest.raises(BenchmarkError, match="piqa"):
        load_benchmarks(folder, 4, 0, ["gsm8k", "piqa"])


def test_what_is_there_beside_the_needed_is_loaded_too_for_its_descriptions(folder: Path) -> None:
    (folder / "mbpp.jsonl").unlink()
    assert {s.task for s in load_benchmarks(folder, 4, 0, ["gsm8k"])} > {"gsm8k", "piqa"}


def test_faults_are_named(folder: Path) -> None:
    (folder / "piqa.jsonl").write_text('{"question": 3}\n')
    with pytest.raises(BenchmarkError, match=r"piqa\.jsonl, line 1: question"):
        load_benchmarks(folder, 4, 0)
    (folder / "piqa.jsonl").unlink()
    with pytest.raises(BenchmarkError, match=r"piqa\.jsonl"):
        load_benchmarks(folder, 4, 0)
    (folder / "descriptions.json").write_text('{"piqa": {}}')
    with pytest.raises(BenchmarkError, match=r"piqa\.train_descriptions"):
        load_benchmarks(folder, 4, 0)
    assert Question.model_validate({"question": "q", "answer": "a"}).choices == []
