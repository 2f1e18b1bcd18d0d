import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypernet.descriptions import normalise

INVISIBLE = ["\u200b", "\ufeff", "\u00ad", "\u2060", "\u200e", "\u202e", "\u2066", "\u3164", "\x07", "\x7f"]
JOINERS = ["\u200c", "\u200d", "\ufe0f", "\U000e0100"]


@given(st.text())
def test_normalising_is_idempotent(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.sampled_from(["NFC", "NFD"]))
def test_unicode_form_and_whitespace_do_not_matter(text: str, form: str) -> None:
    variant = "\n  " + unicodedata.normalize(form, text).replace(" ", " \t\r\n ") + " "
    assert normalise(variant) == normalise(text)


@pytest.mark.parametrize("character", INVISIBLE)
def test_invisible_characters_are_removed(character: str) -> None:
    assert normalise(f"{character}Trans{character}late{character}") == "Translate"


@pytest.mark.parametrize("character", JOINERS)
def test_joiners_and_variation_selectors_stay_inside_text(character: str) -> None:
    assert normalise(f"a{character}b") == f"a{character}b"


@given(st.text([*INVISIBLE, *JOINERS, " ", "\n", "\u3000"]))
def test_text_without_visible_characters_becomes_empty(text: str) -> None:
    assert normalise(text) == ""


def test_case_punctuation_and_compatibility_characters_stay() -> None:
    for text in ("Square it: x²", "ANSWER IN CAPITALS!", "ﬁne"):
        assert normalise(text) == text
