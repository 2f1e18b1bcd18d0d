import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hypernet.cli import app
from hypernet.data.hub import BENCHMARKS, HubError, benchmark_rows, download, metric, natural_instruction
from hypernet.data.tasks import Instance, load_tasks

PROMPT = """Definition: Name the capital of the country.

Positive Example 1 -
Input: Input: Italy
Output: Rome

Now complete the following example -
Input: {}
Output:"""
NAME = "Lots-of-LoRAs/task1146_country_capital"
ARC = {"choices": {"text": ["sun", "moon"], "label": ["1", "2"]}, "answerKey": "2"}
ROWS: dict[str, dict[str, Any]] = {
    "arc_challenge": {"question": "q", **ARC},
    "arc_easy": {"question": "q", **ARC},
    "boolq": {"question": "q", "passage": "p", "answer": True},
    "gsm8k": {"question": "q", "answer": "2 + 2 = 4\n#### 4"},
    "hellaswag": {"ctx": "q", "endings": ["a", "b", "c", "d"], "label": "3"},
    "openbookqa": {"question_stem": "q", **ARC},
    "piqa": {"goal": "q", "sol1": "a", "sol2": "b", "label": 1},
    "winogrande": {"sentence": "q", "option1": "a", "option2": "b", "answer": "1"},
    "humaneval": {"prompt": "q", "canonical_solution": "c", "entry_point": "f", "test": "t"},
    "mbpp": {"text": "q", "code": "c", "test_list": ["assert a", "assert b"], "test_setup_code": ""},
}
ANSWERS = ["moon", "moon", "true", "4", "d", "moon", "b", "a", "c", "c"]


def test_definition_and_examples_are_removed_from_the_input() -> None:
    rows = [{"input": PROMPT.format(c), "output": [o]} for c, o in (("France", "Paris"), ("Peru", "Lima"))]
    task = natural_instruction(NAME, rows)
    assert (task.task, task.name) == ("lol_1146", "task1146_country_capital")
    assert task.definition == "Name the capital of the country."
    assert [(i.input, i.output) for i in task.instances] == [("France", ["Paris"]), ("Peru", ["Lima"])]
    assert task.metric == "exact_match"


def test_rows_in_another_form_are_kept_whole_and_described_by_name() -> None:
    task = natural_instruction(NAME, [{"input": " France ", "output": "Paris"}])
    assert task.instances == [Instance(input="France", output=["Paris"])]
    assert task.paraphrases == ["task1146 country capital"]


def test_row_in_another_form_does_not_remove_the_definition() -> None:
    rows = [{"input": PROMPT.format("France"), "output": "Paris"}, {"input": "Peru", "output": "Lima"}]
    assert natural_instruction(NAME, rows).definition == "Name the capital of the country."


@pytest.mark.parametrize("rows", [[], [{"input": "a", "output": []}], [{"output": "b"}]])
def test_rows_without_content_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(HubError, match="task1146"):
        natural_instruction(NAME, rows)


def test_long_and_varied_answers_are_scored_by_overlap() -> None:
    texts = [f"a rather long answer, number {i}, in many words" for i in range(30)]
    assert metric([Instance(input="", output=[t]) for t in texts]) == "rougeL"
    assert metric([Instance(input="", output=[texts[i % 2]]) for i in range(30)]) == "exact_match"


@pytest.mark.parametrize(("name", "answer"), list(zip(ROWS, ANSWERS, strict=True)))
def test_every_benchmark_reads_its_columns(name: str, answer: str) -> None:
    (row,) = benchmark_rows(name, [ROWS[name]])
    assert (row["question"], row["answer"], row["benchmark"]) == ("q", answer, name)
    assert row["answer_index"] is None or row["choices"][row["answer_index"]] == answer
    assert set(BENCHMARKS) == set(ROWS)


def test_row_of_another_dataset_is_named() -> None:
    with pytest.raises(HubError, match=r"ai2_arc: row 1"):
        benchmark_rows("arc_easy", [ROWS["arc_easy"], ROWS["gsm8k"]])
    with pytest.raises(HubError, match="row 0"):
        benchmark_rows("arc_easy", [ROWS["arc_easy"] | {"answerKey": "9"}])


def test_missing_datasets_package_is_reported_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(HubError, match="pip install datasets"):
        download("x/y", None, "train")


class Hub:
    """Stands where `datasets` would: the one call, answered from local rows."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self.rows = rows

    def load_dataset(self, name: str, subset: str | None, split: str) -> list[dict[str, Any]]:
        if name not in self.rows:
            raise FileNotFoundError(f"no {name} {subset} {split}")
        return self.rows[name]


def test_commands_write_files_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        NAME: [{"input": PROMPT.format("France"), "output": ["Paris"]}] * 3,
        "openai/gsm8k": [ROWS["gsm8k"]],
    }
    monkeypatch.setitem(sys.modules, "datasets", Hub(rows))
    tasks, benchmark = tmp_path / "new/tasks.jsonl.gz", tmp_path / "gsm8k.jsonl"
    run = CliRunner()
    result = run.invoke(app, ["tasks", "from-hub", NAME, "--out", str(tasks), "--limit", "2"])
    assert result.exit_code == 0, result.output
    assert [len(t.instances) for t in load_tasks(tasks)] == [2]
    result = run.invoke(app, ["tasks", "benchmark", "gsm8k", "--out", str(benchmark)])
    assert result.exit_code == 0, result.output
    assert json.loads(benchmark.read_text())["answer"] == "4"
    assert "no other/one" in run.invoke(app, ["tasks", "from-hub", "other/one", "--out", str(tasks)]).output
    assert "gsm8k" in run.invoke(app, ["tasks", "benchmark", "mmlu", "--out", str(tasks)]).output
