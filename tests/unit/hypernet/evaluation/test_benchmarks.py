"""The ten benchmarks from small files: prompts, grading, few-shot examples, malformed files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hypernet.evaluation.benchmarks import (
    BENCHMARKS,
    BenchmarkError,
    Question,
    extract_code,
    last_number,
    load_benchmarks,
)
from hypernet.evaluation.eval_task import EvalTask, Sample

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
    descriptions = {}
    for name, row in ROWS.items():
        rows = [{"answer": "", **row, "question": "\n" * i + row["question"]} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if name not in ("humaneval", "piqa", "winogrande"):
            shown = [{**rows[0], "question": f"Another {i}"} for i in range(5)]
            (tmp_path / f"{name}.train.jsonl").write_text(
                "".join(json.dumps(r) + "\n" for r in [*shown, rows[0]])
            )
        descriptions[name] = {
            "train_descriptions": ["t1", "t2", "t3", "t4"],
            "eval_descriptions": ["e1", "e2", "e3"],
        }
    (tmp_path / "descriptions.json").write_text(json.dumps(descriptions))
    return tmp_path


@pytest.fixture
def eval_tasks(folder: Path) -> dict[str, EvalTask]:
    return {s.task: s for s in load_benchmarks(folder, 4, seed=0)}


def sample(eval_tasks: dict[str, EvalTask], name: str) -> Sample:
    return eval_tasks[name].samples[0]


def test_all_ten_are_loaded_and_few_shot_examples_are_no_samples(eval_tasks: dict[str, EvalTask]) -> None:
    assert set(eval_tasks) == set(BENCHMARKS) == set(ROWS)
    for name, eval_task in eval_tasks.items():
        assert len(eval_task.samples) == 4
        assert (list(eval_task.eval_descriptions), list(eval_task.training_descriptions)) == (
            ["e1", "e2", "e3"],
            ["t1", "t2", "t3"],
        )
        assert len(eval_task.examples) == (0 if name in ("humaneval", "piqa", "winogrande") else 3)
        prompts = {i.prompt for i in eval_task.samples}
        assert not prompts & {question for question, _ in eval_task.examples}
        assert all(answer.startswith(eval_task.answer_prefix) for _, answer in eval_task.examples)


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
    eval_tasks: dict[str, EvalTask], name: str, right: list[str], wrong: list[str]
) -> None:
    one = sample(eval_tasks, name)
    for answer in right + wrong:
        assert one.grade(answer) == (answer in right), answer
        # the score of a decided answer does not depend on later tokens
        beginnings = [answer[:n] for n in range(len(answer) + 1)]
        for beginning in filter(one.can_stop, beginnings):
            assert one.grade(beginning) == one.grade(answer), (beginning, answer)


def test_boolq_reads_the_first_word_only() -> None:
    question = Question(question="is it", answer="false")
    for answer, score in (("No.", 1), ("false", 1), ("There is no evidence", 0), ("Not false", 0)):
        assert BENCHMARKS["boolq"].grade(question, answer) == score


def test_prompt_lists_the_options_with_their_labels(eval_tasks: dict[str, EvalTask]) -> None:
    assert "A: iron\nB: air\nC: ice\n" in sample(eval_tasks, "arc_challenge").prompt
    assert "one of A, B, C and" in sample(eval_tasks, "arc_challenge").prompt
    assert "E: hail" in sample(eval_tasks, "arc_easy").prompt
    assert sample(eval_tasks, "winogrande").target == "2"
    assert sample(eval_tasks, "gsm8k").target is sample(eval_tasks, "mbpp").target is None


def test_code_is_graded_by_its_tests(eval_tasks: dict[str, EvalTask]) -> None:
    human = sample(eval_tasks, "humaneval")
    assert human.grade("    return math.sqrt(x)\n```\nIt takes the root.") == 1
    assert human.grade("def f(x):\n    return x ** 0.5\n```\n") == 1
    assert human.grade("def f(x):\n    return x\n```") == 0
    assert human.grade("import sys; sys.exit(0)\ndef f(x): pass") == 0
    assert human.can_stop("    return 1\n```")
    assert not human.can_stop("    return 1\n")
    basic = sample(eval_tasks, "mbpp")
    assert basic.grade("def g(x):\n    return x + 1\n```") == 1
    assert basic.grade("```python\ndef g(x):\n    return x + 1\n```") == 1
    assert basic.grade("") == 0


def test_code_and_last_number_are_extracted() -> None:
    assert extract_code("x = 1\n```\ntext") == "x = 1\n"
    assert extract_code("\n```python\nx = 2\n```\nmore").strip() == "x = 2"
    assert extract_code("x = 3") == "x = 3"
    assert last_number("so 1,200 cents, or $12.50.") == 12.5
    assert last_number("minus -3 degrees") == -3
    assert last_number("none") is None


def test_a_folder_with_some_benchmarks_is_enough(folder: Path) -> None:
    rows = (folder / "gsm8k.jsonl").read_bytes()
    for path in folder.glob("*.jsonl"):
        path.unlink()
    (folder / "gsm8k.jsonl.gz").write_bytes(gzip.compress(rows))
    (eval_task,) = load_benchmarks(folder, 4, 0, ["gsm8k"])
    assert eval_task.task == "gsm8k" and eval_task.samples
    with pytest.raises(BenchmarkError, match="piqa"):
        load_benchmarks(folder, 4, 0, ["gsm8k", "piqa"])


def test_benchmarks_beyond_the_needed_are_loaded_too(folder: Path) -> None:
    (folder / "mbpp.jsonl").unlink()
    assert {s.task for s in load_benchmarks(folder, 4, 0, ["gsm8k"])} > {"gsm8k", "piqa"}


def test_malformed_files_are_named(folder: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("piqa", {"answer_index": None}, "answer_index: is None, needs 0 to 1"),
        ("piqa", {"answer_index": 2}, "answer_index: is 2, needs 0 to 1"),
        ("arc_easy", {"choices": ["a"]}, "choices: has 1 options, needs 2 to 5"),
        ("piqa", {"choices": ["a", "b", "c"]}, "choices: has 3 options, needs 2 to 2"),
        ("boolq", {"answer": "yes"}, "answer: must be true or false"),
        ("gsm8k", {"answer": "five"}, "answer: holds no number"),
        ("humaneval", {"test": ""}, "test and entry_point: one of them is empty"),
        ("mbpp", {"test": ""}, "test: is empty"),
    ],
)
def test_questions_that_cannot_be_graded_are_refused(
    folder: Path, name: str, change: dict[str, Any], fault: str
) -> None:
    rows = [{"answer": "", **ROWS[name]}, {"answer": "", **ROWS[name], **change}]
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(BenchmarkError) as error:
        load_benchmarks(folder, 4, 0)
    assert f"{name}.jsonl, line 2: {fault}" in str(error.value)


def test_a_benchmark_without_descriptions_is_named(folder: Path) -> None:
    descriptions = json.loads((folder / "descriptions.json").read_text())
    del descriptions["piqa"]
    (folder / "descriptions.json").write_text(json.dumps(descriptions))
    with pytest.raises(BenchmarkError, match=r"descriptions\.json: has no entry 'piqa'"):
        load_benchmarks(folder, 4, 0)
