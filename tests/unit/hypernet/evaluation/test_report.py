"""Tables and figures of small results. The expected numbers are computed by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypernet.cli import app
from hypernet.evaluation.figures import write_figures
from hypernet.evaluation.metrics import bootstrap
from hypernet.evaluation.report import ROW_TITLES, report, table_groups, tables
from hypernet.evaluation.results import EvalResult, ResultStore
from tests.support.eval_results import make_result

SCORES = {
    "base": {"fv_a": 0.0, "lol_b": 0.25, "lol_c": 0.5},
    "matched": {"fv_a": 1.0, "lol_b": 0.5, "lol_c": 0.5},
    "mismatched": {"fv_a": 0.5, "lol_b": 0.5},
}
NLLS = {"base": 4.0, "matched": 2.0, "mismatched": 3.0}


def results() -> list[EvalResult]:
    return [
        make_result(
            task=task,
            condition=condition,
            system="" if condition == "base" else "t2l-l",
            metric="rougeL" if task == "lol_c" else "exact_match",
            score=score,
            nll=NLLS[condition] + (task == "lol_c"),
        )
        for condition, tasks in SCORES.items()
        for task, score in tasks.items()
    ]


def test_tables_hold_means_intervals_and_paired_differences() -> None:
    text = tables(results())
    lines = {line.split(" | ")[0].strip("| "): line for line in text.split("Own description")[0].splitlines()}
    assert "token NLL (3 tasks)" in lines["condition"]
    assert "exact match % (2 tasks)" in lines["condition"]
    assert "(1 tasks)" not in lines["**T2L, own description (evaluation wording)**"]
    own = lines["**T2L, own description (evaluation wording)**"]
    assert "| 2.33 [2.00, 3.00] | 66.7 [50.0, 100.0] | 75.0 [50.0, 100.0] | 50.0 [50.0, 50.0] |" in own
    assert own.endswith("| 100.0 [100.0, 100.0] |")
    # a row with fewer tasks names their number
    assert (
        "3.00 [3.00, 3.00] (2 tasks) | 50.0 [50.0, 50.0] (2 tasks) | 50.0 [50.0, 50.0] |  |"
        in lines[ROW_TITLES["mismatched"]]
    )
    differences = text.split("Own description")[1]
    base = "-2.00 [-2.00, -2.00] | 41.7 [0.0, 100.0] | 62.5 [25.0, 100.0] | 0.0 [0.0, 0.0] |"
    assert f"| {ROW_TITLES['base']} | {base}" in differences
    assert (
        f"| {ROW_TITLES['mismatched']} | -1.00 [-1.00, -1.00] (2 tasks) | 25.0 [0.0, 50.0] (2 tasks) |"
        in differences
    )


def test_oracle_share_is_the_ratio_of_sums() -> None:
    oracles = [
        make_result(task=task, condition="oracle", system="library", score=score, nll=0.0)
        for task, score in {"fv_a": 1.0, "lol_b": 0.75, "lol_c": 0.0}.items()
    ]
    (line,) = [line for line in tables([*results(), *oracles]).splitlines() if line.startswith("| share of")]
    assert line.split(" | ")[1] == ""  # no share of a likelihood
    assert line.split(" | ")[2].startswith("86 [")  # (1 + 0.5) / (1 + 0.75): an oracle at 0 is no measure


def test_intervals_come_from_the_bootstrap() -> None:
    values = [100.0, 50.0, 25.0, 0.0]
    some = [make_result(task=f"x{i}", score=v / 100) for i, v in enumerate(values)]
    found = bootstrap(values, seed=4)
    assert f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]" in tables(some, seed=4)


def test_several_checkpoints_are_named_and_compared_within_themselves() -> None:
    second = [c.model_copy(update={"system": "t2l-m", "nll": 1.0}) for c in results() if c.system]
    text = tables([*results(), *second])
    assert text.count("**T2L, own description (evaluation wording) (t2l-l)**") == 1
    assert "Own description of t2l-m minus" in text
    last = text.split("of t2l-m minus")[1]
    assert last.count(ROW_TITLES["mismatched"]) == 1
    assert f"| {ROW_TITLES['base']} | -3.33 " in last
    assert f"| {ROW_TITLES['matched']} (t2l-l) | -1.33 " in last  # one checkpoint against the other


def test_training_has_a_row_unless_it_repeats_matched_and_the_report_says_so() -> None:
    own = [c for c in results() if c.condition == "matched"]
    same = [c.model_copy(update={"condition": "training"}) for c in own]
    repeated = tables([*results(), *same])
    assert f"| {ROW_TITLES['training']} |" not in repeated
    assert f"No row for `{ROW_TITLES['training']}`: every task has the same descriptions" in repeated
    other = [same[0].model_copy(update={"nll": 0.0}), *same[1:]]
    assert tables([*results(), *other]).count(ROW_TITLES["training"]) == 2
    assert ROW_TITLES["training"] in tables(same)


def test_benchmarks_have_their_own_table_with_intervals_over_questions() -> None:
    marks = [
        make_result(task=t, metric="accuracy", scores=[[0.0, 1.0], [1.0, 1.0]], score=0.75, nll=None, nlls=None)
        for t in ("boolq", "piqa")
    ]
    text = report([*results(), *marks])
    assert [len(g) for g in table_groups([*results(), *marks])] == [8, 2]
    assert "boolq % (2 questions) | piqa % (2 questions) | mean % (2 benchmarks)" in text
    assert "75.0 [50.0, 100.0] | 75.0 [50.0, 100.0] | 75.0 [75.0, 75.0]" in text
    assert "seed 0, 2 questions a task" in text


def test_figures_are_reproducible(tmp_path: Path) -> None:
    first = write_figures(results(), tmp_path / "a", "tasks")
    second = write_figures(results(), tmp_path / "b", "tasks")
    assert [p.name for p in first] == ["tasks-differences.svg", "tasks-tasks.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert all(p.stat().st_size < 60_000 for p in first)
    assert "lol_c" in first[1].read_text()


def test_command_writes_tables_figures_and_scores(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results")
    for one in results():
        store.save(one, "key")
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "tables.md").read_text() in done.output
    assert len(list((tmp_path / "out").glob("*.svg"))) == 2
    (table,) = (tmp_path / "out").glob("*-scores.csv")
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == len(results())
    own = next(row for row in rows if (row["task"], row["condition"]) == ("lol_b", "matched"))
    assert (own["system"], own["metric"], float(own["score"])) == ("t2l-l", "exact_match", 0.5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["empty"], "empty holds no result"),
        (["none"], "none holds no result"),
        (["results", "--only", "zz"], "zz"),
        (["results", "--out", "file"], "file"),
    ],
)
def test_user_errors_end_in_one_line(tmp_path: Path, options: list[str], complaint: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    ResultStore(tmp_path / "results").save(results()[0], "0123456789abcdef")
    folder, *rest = [str(tmp_path / o) if o in ("empty", "none", "results", "file") else o for o in options]
    done = CliRunner().invoke(app, ["report", folder, *rest])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert complaint in " ".join(done.stderr.split())


def test_damaged_results_are_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for one in results()[:2]:
        store.save(one, "0123456789abcdef")
    damaged = next(tmp_path.glob("fv_a.*"))
    damaged.write_text("{")
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0
    assert f"skipped: {damaged} is damaged" in done.stderr


def test_conditions_of_a_later_version_have_rows_under_their_names() -> None:
    text = tables([*results(), make_result(task="fv_a", condition="novel", system="x")])
    assert "| novel (x) |" in text
