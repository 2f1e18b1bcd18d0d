"""The fields of a task file: every declared one is read,
any other is refused with the nearest name.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from hypernet.data.tasks import TaskFileError, load_tasks

INSTANCES = [{"input": "hot", "output": ["cold"]}]
FULL = {
    "task": "wn_antonym",
    "name": "antonym",
    "split": "train",
    "source": "a dictionary",
    "categories": ["lexical"],
    "licence": ["CC BY 4.0"],
    "metric": "exact_match",
    "definition": "Give the opposite.",
    "descriptions": ["Name an antonym."],
    "eval_descriptions": ["Say the contrary."],
    "kind": "lexical",
    "group": "wn",
    "kin": ["wn_synonym"],
    "told_only": True,
    "derived": False,
    "instances": INSTANCES,
}


def file(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_every_declared_field_is_read_and_written_back(tmp_path: Path) -> None:
    (task,) = load_tasks(file(tmp_path, FULL))
    assert json.loads(task.model_dump_json()) == FULL


def test_a_licence_may_be_a_single_text(tmp_path: Path) -> None:
    (task,) = load_tasks(file(tmp_path, FULL | {"licence": "MIT"}))
    assert task.licence == "MIT"


@pytest.mark.parametrize("wrong", ["descripton", "description", "Descriptions", "desciptions"])
def test_a_misspelt_field_is_refused_with_the_nearest_name(tmp_path: Path, wrong: str) -> None:
    line = {"task": "t", wrong: ["Do it."], "definition": "Do it.", "instances": INSTANCES}
    with pytest.raises(TaskFileError, match=rf"line 2: {wrong}: unknown field; did you mean descriptions\?"):
        load_tasks(file(tmp_path, FULL, line))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("instence", "instances"), ("grup", "group"), ("license", "licence"), ("toldonly", "told_only")],
)
def test_every_misspelt_field_gets_the_nearest_name(tmp_path: Path, wrong: str, meant: str) -> None:
    with pytest.raises(TaskFileError, match=f"{wrong}: unknown field; did you mean {meant}"):
        load_tasks(file(tmp_path, FULL | {wrong: "x"}))


def test_a_misspelt_field_of_an_instance_is_refused_with_its_place(tmp_path: Path) -> None:
    line = FULL | {"instances": [*INSTANCES, {"input": "up", "output": ["down"], "outputs": ["down"]}]}
    with pytest.raises(TaskFileError, match=r"instances\.1\.outputs: unknown field; did you mean output\?"):
        load_tasks(file(tmp_path, line))


def test_a_field_that_is_near_none_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match=r"zzz: unknown field; a task may have task, name, .*told_only"):
        load_tasks(file(tmp_path, FULL | {"zzz": 1}))


@pytest.mark.parametrize(
    ("name", "told_only", "expected"),
    [
        ("fv_antonym", None, True),
        ("ii_rhymes", None, True),
        ("lol_035", None, False),
        ("fv_antonym", False, False),
        ("mine", True, True),
    ],
)
def test_told_only_field_decides_and_the_name_without_it(
    tmp_path: Path, name: str, told_only: bool | None, expected: bool
) -> None:
    line = FULL | {"task": name, "told_only": told_only}
    (task,) = load_tasks(file(tmp_path, line))
    assert task.description_only is expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.jsonl.gz", b"no gzip"),
        ("cut.jsonl.gz", gzip.compress(b'{"task": "t"}' * 1000)[:40]),
        ("damaged.jsonl.gz", gzip.compress(b"x" * 1000)[:12] + b"\xff" * 20),
        ("binary.jsonl", b"\xff\xfe\x00"),
    ],
    ids=[
        "no-gzip",
        "cut",
        "damaged",
        "binary",
    ],  # gzip's header holds the time, and workers must agree on names
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskFileError, match=f"{name} cannot be read: "):
        load_tasks(path)
