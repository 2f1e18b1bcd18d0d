"""Noise on descriptions, as people type them: typos, other casing, no full stop, polite words.

A hypernetwork that has only read clean sentences generates another adapter after a typo.
"""

from __future__ import annotations

import random
from collections.abc import Callable

POLITE = (
    "Please {}",
    "please {}",
    "Hi! {}",
    "Hello, {}",
    "Could you help me? {}",
    "I need this: {}",
    "{} Thanks!",
    "{} Thank you.",
    "{} please",
)


def add_noise(text: str, rng: random.Random) -> str:
    """The description with one or two of the changes below, drawn at random."""
    for change in rng.sample(CHANGES, rng.randint(1, 2)):
        text = change(text, rng)
    return text


def with_typos(text: str, rng: random.Random) -> str:
    """One typo in about thirty characters, at least one: letters swapped, left out,
    doubled or replaced.
    """
    letters = list(text)
    for _ in range(max(1, round(len(text) / 30))):
        places = [i for i in range(len(letters) - 1) if letters[i].isalpha() and letters[i + 1].isalpha()]
        if not places:
            break
        i = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        elif kind == 1:
            del letters[i]
        elif kind == 2:
            letters.insert(i, letters[i])
        else:
            letters[i] = rng.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(letters)


def recased(text: str, rng: random.Random) -> str:
    """All in small letters, all in capitals, or with the first letter's case turned."""
    return rng.choice((text.lower(), text.lower(), text.upper(), text[:1].swapcase() + text[1:]))


def without_full_stop(text: str, _: random.Random) -> str:
    """The text without a full stop at its end."""
    return text.rstrip().rstrip(".")


def politely(text: str, rng: random.Random) -> str:
    """The text with polite words around it."""
    pattern = rng.choice(POLITE)
    lowered = text[:1].lower() + text[1:] if pattern.endswith("{}") and pattern[-3] != "!" else text
    return pattern.format(lowered)


CHANGES: tuple[Callable[[str, random.Random], str], ...] = (with_typos, recased, without_full_stop, politely)
