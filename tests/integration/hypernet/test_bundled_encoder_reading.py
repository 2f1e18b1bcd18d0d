"""Long, unreadable and foreign descriptions with the bundled encoder."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hypernet.descriptions import DescriptionTooLongError, UnreadableDescriptionError
from hypernet.encoder import Encoder

pytestmark = pytest.mark.integration

TRANSLATIONS = json.loads(Path("docs/data/translated_descriptions.json").read_text())
PREAMBLE = "Please read this text with care. " * 57
"""More than the encoder's 254 tokens."""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


def test_descriptions_that_differ_only_after_the_window_differ(encoder: Encoder) -> None:
    z = encoder.encode([PREAMBLE + "Translate into French.", PREAMBLE + "Classify the sentiment."])
    assert len(encoder.tokenizer.windows(PREAMBLE)) == 2
    assert F.cosine_similarity(z[:1], z[1:]).item() < 0.99


def test_long_and_short_descriptions_in_a_batch_equal_one_at_a_time(encoder: Encoder) -> None:
    texts = ["Name the opposite.", PREAMBLE + "Translate into French.", "Count to ten.", PREAMBLE * 3]
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(encoder.encode(texts), alone, rtol=1e-3, atol=1e-3)


def test_limit_is_eight_windows(encoder: Encoder) -> None:
    assert encoder.tokenizer.max_tokens == 8 * 254
    assert len(encoder.tokenizer.windows("word " * 2032)) == 8
    with pytest.raises(DescriptionTooLongError, match=r"2033 tokens.* 2032"):
        encoder.tokenizer.prepare("word " * 2033)


def test_descriptions_that_differ_in_case_accents_or_invisible_characters_are_equal(encoder: Encoder) -> None:
    variants = ["Write a résumé.", "WRITE A RESUME.", "\ufeffWrite a\u200b re\u00adsume."]
    assert len({encoder.tokenizer.prepare(text).token_ids for text in variants}) == 1


def test_english_descriptions_are_read_without_warning(encoder: Encoder) -> None:
    for row in TRANSLATIONS:
        prepared = encoder.tokenizer.prepare(row["en"])
        assert (prepared.unread, prepared.warnings) == (0, ())


@pytest.mark.parametrize("language", ["ru", "zh"])
def test_other_scripts_are_refused(encoder: Encoder, language: str) -> None:
    for row in TRANSLATIONS:
        with pytest.raises(UnreadableDescriptionError):
            encoder.tokenizer.prepare(row[language])


@pytest.mark.parametrize("text", ["บอกคำตรงข้าม", "ប្រែជាភាសាបារាំង", "ወደ ፈረንሳይኛ ተርጉም", "😢🐱"])
def test_text_outside_the_vocabulary_is_refused(encoder: Encoder, text: str) -> None:
    with pytest.raises(UnreadableDescriptionError, match="100%"):
        encoder.tokenizer.prepare(text)


@pytest.mark.parametrize(("language", "least"), [("de", 20), ("es", 19)])
def test_other_languages_in_latin_letters_are_warned_about(encoder: Encoder, language: str, least: int) -> None:
    warned = [bool(encoder.tokenizer.prepare(row[language]).warnings) for row in TRANSLATIONS]
    assert sum(warned) >= least
