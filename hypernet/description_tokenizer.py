"""The token ids of a description, its windows, and the share that the encoder does not read.

An encoder computes an embedding from token ids alone. So two descriptions with equal token ids get
one adapter, and text without a known token is lost. Both are determined here, before any model
runs.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from hypernet.descriptions import (
    DescriptionTooLongError,
    DescriptionWarning,
    EmptyDescriptionError,
    check_english,
    check_readable,
    normalise,
)

MAX_WINDOWS = 8
"""Maximum number of windows of one description. Bounds the work for one request."""


_ENGLISH_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class TokenizedDescription:
    """A description as an encoder reads it.

    Attributes:
        token_ids: the encoder's tokens, without its special tokens.
        unread: share of the visible characters that the encoder does not read, 0 to 1: those of
            unknown words, and those that the tokenizer drops.
        words: number of words with a letter.
        split_words: share of these words that the vocabulary splits, 0 to 1.
    """

    token_ids: tuple[int, ...]
    unread: float
    words: int
    split_words: float


@dataclass(frozen=True, slots=True)
class PreparedDescription:
    """A description that an encoder accepts.

    Attributes:
        text: the normal form (`hypernet.descriptions.normalise`).
        token_ids: the encoder's tokens. Equal tokens mean equal adapters.
        unread: share of the visible characters that the encoder does not read.
        warnings: reasons why the adapter may not fit the description.
    """

    text: str
    token_ids: tuple[int, ...]
    unread: float
    warnings: tuple[DescriptionWarning, ...]


class DescriptionTokenizer:
    """Tokenizes descriptions as an encoder does. Thread-safe: its settings never change after the
    start.

    The encoder's own tokenizer changes its truncation and padding from call to call, so it cannot
    be shared between threads.

    Attributes:
        window: tokens that the encoder reads at once, without special tokens. None: no limit.
        max_tokens: tokens that the encoder reads of one description. None: no limit.
        english: nearly all words of the vocabulary are ASCII, so that the encoder was trained on
            English.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        window: int | None,
        max_windows: int = 1,
        complete: Callable[[str], str] = lambda text: text,
    ) -> None:
        """Copy a tokenizer.

        Args:
            tokenizer: the encoder's own.
            window: as the attribute, but with special tokens.
            max_windows: windows that the encoder reads of one description.
            complete: what the encoder does with a text before it tokenizes, such as adding a full
                stop.
        """
        state = tokenizer.to_str()
        self._tokenizer = Tokenizer.from_str(state)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._unknown = _unknown_id(json.loads(state)["model"])
        self._complete = complete
        self.english = _is_english(self._tokenizer)
        self.window = None if window is None else window - self._tokenizer.num_special_tokens_to_add(False)
        self.max_tokens = None if self.window is None else self.window * max_windows

    def prepare(self, description: str) -> PreparedDescription:
        """Normalise, tokenize and check a description.

        Raises:
            EmptyDescriptionError: no visible character.
            DescriptionTooLongError: more than `max_tokens` tokens.
            UnreadableDescriptionError: too much is unread or in another script.
        """
        text = normalise(description)
        if not text:
            raise EmptyDescriptionError("the description is empty: it has no visible character")
        tokenized = self(text)
        self._check_length(len(tokenized.token_ids))
        found = [check_readable(tokenized.unread)]
        if self.english:
            found.append(check_english(text, tokenized.words, tokenized.split_words))
        warnings = tuple(warning for warning in found if warning is not None)
        return PreparedDescription(text, tokenized.token_ids, tokenized.unread, warnings)

    def __call__(self, description: str) -> TokenizedDescription:
        """Tokenize a description. About 30 microseconds for a sentence, linear in its length."""
        text = self._complete(description)
        encoding = self._encode(text)
        visible = len("".join(description.split()))
        unread = min(1.0, self._unread_characters(text, encoding) / visible) if visible else 0.0
        pieces = Counter(
            word
            for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True)
            if any(map(str.isalpha, text[start:end]))
        )
        split = sum(count > 1 for count in pieces.values()) / len(pieces) if pieces else 0.0
        return TokenizedDescription(tuple(encoding.ids), unread, len(pieces), split)

    def windows(self, description: str) -> list[list[int]]:
        """Token ids of the windows, special tokens included. They cover all tokens, without
        overlap.

        The windows have equal lengths (up to one window's rounding): a window of a few words at the
        end would have an embedding of its own that means little.

        Raises:
            DescriptionTooLongError: more than `max_tokens` tokens.
        """
        encoding = self._encode(self._complete(description))
        count = len(encoding.ids)
        self._check_length(count)
        if self.window is not None and count > self.window:
            encoding.truncate(math.ceil(count / math.ceil(count / self.window)))
        parts: list[Encoding] = [encoding, *encoding.overflowing]
        return [self._tokenizer.post_process(part).ids for part in parts]

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _check_length(self, tokens: int) -> None:
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise DescriptionTooLongError(
                f"the description has {tokens} tokens, the encoder reads at most {self.max_tokens}: shorten it"
            )

    def _unread_characters(self, text: str, encoding: Encoding) -> int:
        spans = {span for span, i in zip(encoding.offsets, encoding.ids, strict=True) if i == self._unknown}
        return sum(end - start for start, end in spans) + self._dropped(text, spans)

    def _dropped(self, text: str, unknown: set[tuple[int, int]]) -> int:
        """Visible characters outside unknown words that the tokenizer's normaliser removes."""
        normalizer = self._tokenizer.normalizer
        if normalizer is None or text.isascii():
            return 0
        removed = {
            c
            for c in set(text)
            if not c.isascii() and not c.isspace() and not normalizer.normalize_str(c).strip()
        }
        if not removed:
            return 0
        inside = {i for start, end in unknown for i in range(start, end)}
        return sum(c in removed and i not in inside for i, c in enumerate(text))


def _is_english(tokenizer: Tokenizer) -> bool:
    letters = ("".join(filter(str.isalpha, token.lstrip("\u0120\u2581"))) for token in tokenizer.get_vocab())
    words = [word for word in letters if len(word) > 1]
    return sum(map(str.isascii, words)) >= _ENGLISH_SHARE * len(words)


def _unknown_id(model: dict[str, Any]) -> int | None:
    """The id of the unknown token in a tokenizer's model; None:
    the vocabulary covers every text.
    """
    unknown: int | None
    if model["type"] == "Unigram":
        unknown = None if model.get("byte_fallback") else model["unk_id"]
    else:
        unknown = model["vocab"].get(model.get("unk_token"))
    return unknown
