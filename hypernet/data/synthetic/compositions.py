"""Pick a word of a list, then dress it: "the last word of the list, in capital letters".

Two choices that no input tells, in every combination, and lists of any length: a
description has to be read in its parts to be followed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from hypernet.data.synthetic.picking import distinct_lengths, distinguishable, hidden
from hypernet.data.synthetic.task_template import TaskTemplate, answer_patterns

LENGTHS = (3, 4, 5, 6)

TRANSFORMS: dict[str, tuple[Callable[[str], str], str]] = {
    "uppercase": (str.upper, "{} in capital letters"),
    "capitalize": (str.capitalize, "{} with a capital initial"),
    "initial": (lambda w: w[0], "the first letter of {}"),
    "final": (lambda w: w[-1], "the last letter of {}"),
    "quote": (lambda w: f'"{w}"', "{} in quotation marks"),
    "bracket": (lambda w: f"({w})", "{} in brackets"),
    "shout": (lambda w: f"{w}!", "{} with an exclamation mark"),
    "double": (lambda w: f"{w} {w}", "{}, twice"),
    "length": (lambda w: str(sum(map(str.isalpha, w))), "the number of letters of {}"),
}
"""Name -> (what is done to the word, how it is said)."""

PICKS: dict[str, tuple[Callable[[list[str]], str], str]] = {
    "first": (lambda c: c[0], "the first word of the list"),
    "second": (lambda c: c[1], "the second word of the list"),
    "third": (lambda c: c[2], "the third word of the list"),
    "second_to_last": (lambda c: c[-2], "the second to last word of the list"),
    "last": (lambda c: c[-1], "the last word of the list"),
    "alphabetically_first": (min, "the alphabetically first word of the list"),
    "alphabetically_last": (max, "the alphabetically last word of the list"),
    "longest": (lambda c: max(c, key=len), "the longest word of the list"),
    "shortest": (lambda c: min(c, key=len), "the shortest word of the list"),
}
"""Name -> (which word, how it is said)."""


def compositions(
    words: Sequence[str], categories: Mapping[str, Sequence[str]], taken: Collection[str]
) -> Iterator[TaskTemplate]:
    """Every dress of every pick, and of the one word of each category: "uppercase_of_the_animal".

    A pick that an evaluation task asks for is left out at that task's length: exact match looks past
    case and punctuation, so "the last of five, in brackets" would be "the last of five" itself.
    """
    others: dict[str, list[str]] = {}
    for one, rest in distinguishable(categories):
        others.setdefault(one, []).append(rest)
    for dress, (transform, phrase) in TRANSFORMS.items():
        for pick, (rule, said) in PICKS.items():
            if lengths := _free(taken, f"(choose_)?{pick}(_of)?_"):
                yield TaskTemplate(
                    f"{dress}_of_the_{pick}",
                    _patterns(phrase.format(said)),
                    lambda rng, n=lengths, rule=rule, transform=transform: _picked(
                        rng, words, rng.choice(n), rule, transform
                    ),  # type: ignore[misc]
                )
        for one, rests in others.items():
            if lengths := _free(taken, f"{one}_v_[a-z]+_"):
                yield TaskTemplate(
                    f"{dress}_of_the_{one}",
                    _patterns(phrase.format(f"the {one} of the list")),
                    lambda rng, n=lengths, one=one, rests=rests, transform=transform: _found(  # type: ignore[misc]
                        rng, categories[one], categories[rng.choice(rests)], rng.choice(n), transform
                    ),
                )


def _free(taken: Collection[str], pick: str) -> list[int]:
    """The lengths at which no evaluation task has this pick; `pick` matches how its name begins."""
    return [n for n in LENGTHS if not any(re.fullmatch(f"{pick}{n}", name) for name in taken)]


def _patterns(said: str) -> tuple[str, ...]:
    return answer_patterns(said, "Given a list,", "The input is a list of words.")


def _picked(
    rng: random.Random,
    words: Sequence[str],
    n: int,
    rule: Callable[[list[str]], str],
    transform: Callable[[str], str],
) -> tuple[str, str]:
    chosen = distinct_lengths(rng, words, n)
    return ", ".join(chosen), transform(rule(chosen))


def _found(
    rng: random.Random, one: Sequence[str], rest: Sequence[str], n: int, transform: Callable[[str], str]
) -> tuple[str, str]:
    text, answer = hidden(rng, one, rest, n)
    return text, transform(answer)
