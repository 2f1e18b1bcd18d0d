"""Task descriptions as text: their normal form, and the errors and warnings about them.

The server and `t2l generate` accept a description by the same rules. An encoder reports what it
reads of a description (`hypernet.description_tokenizer`); the rules stand here.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

MAX_TOKENS_PER_WORD = 2.2
MAX_NON_ASCII = 0.5

MAX_UNREAD = 0.2
"""Largest share of a description's characters that the encoder may fail to read.
docs/decisions.md, "Unreadable descriptions", has the measurement."""

# The default ignorable code points of Unicode 15, without the joiners U+200C and U+200D and the variation
# selectors: those change words of some scripts, and emoji, and an encoder may read them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
    "\U000e01f0-\U000e0fff]"
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # category Cc without whitespace
_JOINERS = re.compile("[\u200c\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


class DescriptionError(ValueError):
    """A description that gets no adapter. The message says why, and how to mend the description.

    Attributes:
        code: `empty_description`, `description_too_long` or `description_not_readable`.
    """

    code: str


class EmptyDescriptionError(DescriptionError):
    """The description has no visible character."""

    code = "empty_description"


class DescriptionTooLongError(DescriptionError):
    """The description has more tokens than the encoder reads."""

    code = "description_too_long"


class UnreadableDescriptionError(DescriptionError):
    """The encoder's vocabulary lacks too much of the description."""

    code = "description_not_readable"


@dataclass(frozen=True, slots=True)
class DescriptionWarning:
    """An adapter is made, but the description may not have been understood.

    Attributes:
        code: `description_partly_unread` or `description_language`.
        message: what was found and how to mend the description.
    """

    code: str
    message: str


def normalise(description: str) -> str:
    """The normal form of a description: the server stores this form, and encoders read it.

    Unicode NFC, because operating systems compose and decompose the same sentence differently.
    Invisible and control characters are removed: nobody sees them. Each run of whitespace becomes one
    space and the ends are stripped: editors wrap and indent lines. Case, punctuation and compatibility
    characters stay (NFKC would turn 2 superscript 3 into 23), because they may change the task.
    Idempotent. A text without a visible character becomes "".
    """
    visible = _CONTROL.sub("", _INVISIBLE.sub("", description))
    text = " ".join(unicodedata.normalize("NFC", visible).split())
    return text if _JOINERS.sub("", text).strip() else ""


def check_readable(unread: float) -> None:
    """Refuse a description of which the encoder reads too little.

    Raises:
        UnreadableDescriptionError: the unread share is above `MAX_UNREAD`.
    """
    if unread > MAX_UNREAD:
        raise UnreadableDescriptionError(
            f"the encoder's vocabulary lacks {unread:.0%} of the description (at most {MAX_UNREAD:.0%} may be "
            f"lacking): describe the task in English words, without emoji"
        )


def unread_warning(unread: float) -> DescriptionWarning | None:
    """A warning about an unread part, if there is one."""
    if unread == 0:
        return None
    return DescriptionWarning(
        "description_partly_unread",
        f"the encoder's vocabulary lacks {max(unread, 0.01):.0%} of the description, and the adapter ignores "
        f"this part: name emoji and foreign characters in English words",
    )


def language_warning(text: str, tokens_per_word: float) -> DescriptionWarning | None:
    """A warning about a text that is hardly English. For an encoder that was trained on English.

    Args:
        text: a description.
        tokens_per_word: the encoder's tokens per word of it. An English vocabulary cuts foreign words into
            many pieces.
    """
    letters = [c for c in text if c.isalpha()]
    foreign = sum(not c.isascii() for c in letters)
    if tokens_per_word <= MAX_TOKENS_PER_WORD and foreign <= MAX_NON_ASCII * len(letters):
        return None
    return DescriptionWarning(
        "description_language",
        "the description does not look like English, and the encoder was trained on English: the adapter may "
        "be one for another task. Describe the task in English",
    )
