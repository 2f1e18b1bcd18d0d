"""Task descriptions as text: their normal form, and the errors and warnings about them.

The server and `t2l generate` accept a description by the same rules.
`hypernet.description_tokenizer` measures the share of a description that an encoder reads. This
module has the rules.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from hypernet.errors import T2lError

# docs/decisions.md, "Descriptions that an English encoder cannot read", has the measurements.
MAX_UNREAD = 0.2
"""Largest share of a description's characters that the encoder may fail to read."""
MAX_FOREIGN_LETTERS = 0.5
"""Largest share of letters outside the Latin script that an English encoder accepts."""
WARN_FOREIGN_LETTERS = 0.1
"""Share of letters outside the Latin script above which the answer carries a warning."""
WARN_SPLIT_WORDS = 0.3
"""Share of words that an English vocabulary splits, above which the answer carries a warning."""
MIN_WORDS = 4
"""Texts with fewer words are too short to detect their language."""

# The default ignorable code points of Unicode 15, without the joiners U+200C and U+200D and the
# variation selectors: those change words of some scripts, and emoji, and an encoder may read them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
    "\U000e01f0-\U000e0fff]"
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # category Cc without whitespace
_JOINERS = re.compile("[\u200c\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


class DescriptionError(T2lError):
    """A description that gets no adapter. The message says why, and how to fix the description.

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
    """A reason why an adapter may not fit its description.

    Attributes:
        code: `description_partly_unread` or `description_language`.
        message: what was found and how to fix the description.
    """

    code: str
    message: str


def normalise(description: str) -> str:
    """The normal form of a description: the server stores this form, and encoders read it.

    Unicode NFC, because operating systems compose and decompose the same sentence differently.
    Invisible and control characters are removed. Each run of whitespace becomes one
    space and the ends are stripped: editors wrap and indent lines. Case, punctuation and
    compatibility characters stay (NFKC would turn 2 superscript 3 into 23), because they may change
    the task. Idempotent. A text without a visible character becomes "".
    """
    visible = _CONTROL.sub("", _INVISIBLE.sub("", description))
    text = " ".join(unicodedata.normalize("NFC", visible).split())
    return text if _JOINERS.sub("", text).strip() else ""


def foreign_letters(text: str) -> float:
    """Share of the letters that are outside the Latin script, 0 to 1."""
    if text.isascii():
        return 0.0
    letters = [c for c in text if c.isalpha()]
    foreign = sum(not c.isascii() and "LATIN" not in unicodedata.name(c, "") for c in letters)
    return foreign / len(letters) if letters else 0.0


def check_readable(unread: float) -> DescriptionWarning | None:
    """Check the share of a description that the encoder does not read.

    Returns:
        A warning for a small share, None for 0.

    Raises:
        UnreadableDescriptionError: the share is above `MAX_UNREAD`.
    """
    if unread == 0:
        return None
    lacks = f"the encoder's vocabulary lacks {max(unread, 0.01):.0%} of the description"
    if unread > MAX_UNREAD:
        raise UnreadableDescriptionError(
            f"{lacks}, and at most {MAX_UNREAD:.0%} may be lacking: describe the task in English words, "
            f"without emoji"
        )
    return DescriptionWarning(
        "description_partly_unread",
        f"{lacks}, and the adapter ignores this part: name emoji and foreign characters in English words",
    )


def check_english(text: str, words: int, split_words: float) -> DescriptionWarning | None:
    """Check a description for an encoder that was trained on English.

    Args:
        text: a description.
        words: number of words.
        split_words: share of the words that the encoder's vocabulary splits. English descriptions
            have 0.04 in the median, German and Spanish ones 0.5.

    Raises:
        UnreadableDescriptionError: most letters are outside the Latin script.
    """
    foreign = foreign_letters(text)
    if foreign > MAX_FOREIGN_LETTERS:
        raise UnreadableDescriptionError(
            f"{foreign:.0%} of the description's letters are outside the Latin script, and the encoder was "
            f"trained on English: describe the task in English"
        )
    if foreign <= WARN_FOREIGN_LETTERS and (words < MIN_WORDS or split_words <= WARN_SPLIT_WORDS):
        return None
    return DescriptionWarning(
        "description_language",
        "the description does not look like English, and the encoder was trained on English: the adapter may "
        "fit another task. Describe the task in English",
    )
