"""The limits of a tiny encoder are measured on tasks of our own, and every line is printed."""

import json
from pathlib import Path

import pytest
import torch

from hypernet.analysis.encoder_limits import Limits, long_text, nearest
from hypernet.data.tasks import Instance, Task
from hypernet.encoder import Encoder

TRANSLATIONS = Path("docs/data/translated_descriptions.json")


def task(name: str) -> Task:
    descriptions = [f"Do {name} with item number {i}" for i in range(20)]
    instances = [Instance(input=f"{name} {i}", output=["x"]) for i in range(2)]
    return Task(task=name, descriptions=descriptions, instances=instances)


def test_nearest_finds_the_prototype_of_largest_cosine() -> None:
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert nearest(torch.tensor([[0.1, 5.0], [3.0, 2.9]]), prototypes).tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["preamble", "paraphrases", "examples"])
def test_long_texts_have_the_wanted_length_and_hold_the_description(kind: str) -> None:
    text = long_text(kind, task("a"), ["Name the opposite.", "Say the opposite."], 120)
    assert 100 < len(text.split()) < 180
    assert "Name the opposite." in text


def test_every_measurement_of_an_encoder_is_printed(
    tiny_encoder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernet.analysis.encoder_limits.WORDS", (20,))
    limits = Limits(Encoder.load(str(tiny_encoder)), [task("apple"), task("zebra")])
    limits.unread()
    limits.languages([{"en": "Name it.", "de": "Nenne es."}] * 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("unread 0.00: same task as whole 1.00")
    assert [line[:2] for line in lines[-2:]] == ["en", "de"]


def test_translations_have_the_same_languages_in_every_row() -> None:
    rows = json.loads(TRANSLATIONS.read_text())
    assert len(rows) == 20
    assert all(set(row) == {"en", "ru", "de", "es", "zh"} and all(row.values()) for row in rows)
