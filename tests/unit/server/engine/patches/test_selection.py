"""The textual form of a patch selection: every selection has one, and a wrong one is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.patches.selection import VARIABLE, PatchSelection
from server.settings import Settings

selections = st.builds(
    PatchSelection,
    cpu_lora=st.sampled_from(["native", "products", "off"]),
    cpu_ops=st.booleans(),
    seeded_sampling=st.booleans(),
    stacked_slots=st.booleans(),
)
ALL = PatchSelection()
NONE = PatchSelection(cpu_lora="off", cpu_ops=False, seeded_sampling=False, stacked_slots=False)


@given(selections)
def test_parsing_inverts_formatting(selection: PatchSelection) -> None:
    assert PatchSelection.parse(str(selection)) == selection


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("all", ALL),
        ("none", NONE),
        ("cpu_lora,cpu_ops,seeded_sampling,stacked_slots", ALL),
        (" cpu_ops , stacked_slots ", PatchSelection(cpu_lora="off", seeded_sampling=False)),
        ("all,cpu_lora=products", PatchSelection(cpu_lora="products")),
        ("cpu_lora=products,all", PatchSelection(cpu_lora="products")),
    ],
)
def test_text_selects_patches(text: str, selection: PatchSelection) -> None:
    assert PatchSelection.parse(text) == selection


@pytest.mark.parametrize("text", ["norms", "cpu_lora=fast", "cpu_ops=1", "cpu_ops,,", "ALL"])
def test_unknown_patch_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="cpu_lora, cpu_ops, seeded_sampling, stacked_slots"):
        PatchSelection.parse(text)


def test_misspelt_patch_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="Did you mean stacked_slots"):
        PatchSelection.parse("cpu_lora,stack_slots")


def test_none_stands_alone() -> None:
    with pytest.raises(ValueError, match="stands alone"):
        PatchSelection.parse("none,cpu_ops")


def test_unset_variable_selects_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert PatchSelection.from_environment() == ALL


def test_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "norms")
    with pytest.raises(ValueError, match=f"{VARIABLE}: 'norms' is not a patch"):
        PatchSelection.from_environment()


@pytest.mark.parametrize("before", [None, "none"])
def test_selection_is_exported_to_child_processes_only(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(VARIABLE, before)
    selection = PatchSelection(cpu_lora="products")
    with selection.exported():
        assert PatchSelection.from_environment() == selection
    assert os.environ.get(VARIABLE) == before


def test_setting_has_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "all,cpu_lora=products")
    assert Settings().vllm_patches == PatchSelection(cpu_lora="products")
    monkeypatch.setenv(VARIABLE, "cpu_opps")
    with pytest.raises(ValueError, match="Did you mean cpu_ops"):
        Settings()
