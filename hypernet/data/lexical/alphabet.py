"""Relations of letters, and of the first and last letters of words: successor, position, name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from string import ascii_lowercase

from hypernet.data.lexical.relation import Relation

SPOKEN = [
    "Alfa",
    "Bravo",
    "Charlie",
    "Delta",
    "Echo",
    "Foxtrot",
    "Golf",
    "Hotel",
    "India",
    "Juliett",
    "Kilo",
    "Lima",
    "Mike",
    "November",
    "Oscar",
    "Papa",
    "Quebec",
    "Romeo",
    "Sierra",
    "Tango",
    "Uniform",
    "Victor",
    "Whiskey",
    "X-ray",
    "Yankee",
    "Zulu",
]
"""The spelling alphabet of ICAO and NATO."""

RULES: dict[str, tuple[Callable[[str], object], str]] = {
    "next": (lambda c: _shifted(c, 1), "the letter after {}"),
    "previous": (lambda c: _shifted(c, -1), "the letter before {}"),
    "second_next": (lambda c: _shifted(c, 2), "the letter two places after {}"),
    "place": (lambda c: ascii_lowercase.index(c) + 1, "the place of {} in the alphabet"),
    "spoken": (lambda c: SPOKEN[ascii_lowercase.index(c)], "the word that spells {} over the radio"),
    "sound": (lambda c: "vowel" if c in "aeiou" else "consonant", "the kind of {}, vowel or consonant"),
}
"""Name -> (letter -> answer, noun phrase for it)."""

ENDS: dict[str, tuple[Callable[[str], str], str]] = {
    "letter": (lambda w: w, "this letter"),
    "first": (lambda w: w[0], "the first letter of the word"),
    "second": (lambda w: w[1], "the second letter of the word"),
    "last": (lambda w: w[-1], "the last letter of the word"),
}


def alphabet(words: Sequence[str]) -> Iterator[Relation]:
    """Every rule, of single letters and of letters of the words;
    "z" has no next letter and is left out.
    """
    for end, (cut, of) in ENDS.items():
        questions = (
            [*ascii_lowercase, *ascii_lowercase.upper()]
            if end == "letter"
            else [w for w in words if w.isalpha()]
        )
        for name, (rule, noun_phrase) in RULES.items():
            answers = ((q, rule(cut(q.lower()))) for q in questions)
            yield Relation(
                f"{end}-{name}",
                noun_phrase.format(of),
                "a letter" if end == "letter" else "a word",
                [(q, str(answer)) for q, answer in answers if answer],
            )


def _shifted(letter: str, by: int) -> str:
    """The letter so many places on, or nothing beyond the ends."""
    place = ascii_lowercase.index(letter) + by
    return ascii_lowercase[place] if 0 <= place < 26 else ""
