"""Tokens, windows and the unread share of descriptions, with a BERT tokenizer of a few words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from hypernet.description_tokenizer import DescriptionTokenizer
from hypernet.descriptions import (
    MAX_UNREAD,
    DescriptionTooLongError,
    EmptyDescriptionError,
    UnreadableDescriptionError,
)

WORDS = ["name", "the", "opposite", "of", "a", "word", ":", ".", "##s", "reply", "with"]
CYRILLIC = [*"слово", *(f"##{c}" for c in "слово")]

SUFFIXES = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]


def bert(*more: str, lowercase: bool = True) -> Tokenizer:
    vocabulary = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *more])
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


READER = DescriptionTokenizer(bert(), window=10, max_windows=4)
words = st.lists(st.sampled_from(["name", "the", "opposite", "word"]), min_size=1, max_size=32)


@given(words)
def test_windows_cover_all_tokens_in_order_and_have_equal_lengths(text: list[str]) -> None:
    windows = READER.windows(" ".join(text))
    assert all(len(w) <= 10 and w[0] == 2 and w[-1] == 3 for w in windows)
    inner = [w[1:-1] for w in windows]
    assert tuple(i for w in inner for i in w) == READER(" ".join(text)).token_ids
    assert len(windows) == math.ceil(len(text) / 8)
    assert len(inner[0]) - len(inner[-1]) < len(windows)


def test_more_tokens_than_the_limit_are_refused_with_both_counts() -> None:
    assert len(READER.prepare(" ".join(["word"] * 32)).token_ids) == 32
    for refuse in (READER.prepare, READER.windows):
        with pytest.raises(DescriptionTooLongError, match=r"33 tokens.* 32"):
            refuse(" ".join(["word"] * 33))


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\ufeff\u00ad", "\u3000"])
def test_text_without_visible_characters_is_refused(text: str) -> None:
    with pytest.raises(EmptyDescriptionError):
        READER.prepare(text)


@pytest.mark.parametrize("text", ["😢", "บอกคำตรงข้าม", "ប្រែ", "አማርኛ ተርጉም", "\ue000\ue001", "\u0301"])
def test_text_without_known_tokens_is_refused(text: str) -> None:
    assert READER(text).unread == 1
    with pytest.raises(UnreadableDescriptionError, match="100%"):
        READER.prepare(text)


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("Reply with a word: 😢", 1 / 16),
        ("reply with 😢😢😢", 3 / 12),
        ("word😢 reply", 5 / 10),  # the whole word has one unknown token
        ("word \ue000 reply", 1 / 10),  # the normaliser drops it: no token at all
        ("Réply wïth ä wörd", 0),
    ],
)
def test_unread_is_the_share_of_characters_without_a_known_token(text: str, unread: float) -> None:
    assert READER(text).unread == pytest.approx(unread)


@given(st.text())
def test_unread_is_a_share_of_any_text(text: str) -> None:
    assert 0 <= READER(text).unread <= 1


def test_partly_unread_text_is_accepted_with_a_warning() -> None:
    prepared = READER.prepare("Reply with a word: 😢")
    assert 0 < prepared.unread < MAX_UNREAD
    assert [w.code for w in prepared.warnings] == ["description_partly_unread"]
    assert READER.prepare("Reply with a word.").warnings == ()


def test_equal_tokens_follow_what_the_encoder_distinguishes() -> None:
    variants = ["Name the word", "name THE word", "náme the wörd", "name\u200b the word", "na\u00adme the word"]
    assert len({READER.prepare(text).token_ids for text in variants}) == 1
    cased = DescriptionTokenizer(bert("Name", lowercase=False), window=10)
    assert cased.prepare("Name the word").token_ids != cased.prepare("name the word").token_ids


ENGLISH = DescriptionTokenizer(bert(*CYRILLIC, *"abcdefghijklmnopqrstuvwxyz", *SUFFIXES), window=100)


def test_other_scripts_are_refused_by_an_english_encoder_only() -> None:
    assert ENGLISH.english
    with pytest.raises(UnreadableDescriptionError, match="100% of the description's letters"):
        ENGLISH.prepare("слово слово")
    assert [w.code for w in ENGLISH.prepare("name the opposite word of a слово").warnings] == [
        "description_language"
    ]
    both = DescriptionTokenizer(bert(*CYRILLIC, "слово", "слов", "лов", "сло", "ово"), window=40)
    assert not both.english
    assert both.prepare("слово слово").warnings == ()


def test_words_that_an_english_vocabulary_splits_are_warned_about() -> None:
    tokenized = ENGLISH("nenne the opposite of wort")
    assert (tokenized.words, tokenized.split_words) == (5, 0.4)
    assert [w.code for w in ENGLISH.prepare("nenne the opposite of wort").warnings] == ["description_language"]
    assert ENGLISH.prepare("name the opposite of a wort.").warnings == ()
    assert ENGLISH.prepare("nenne wort").warnings == ()  # too short to tell
