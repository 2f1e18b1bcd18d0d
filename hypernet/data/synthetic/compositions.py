"""Pick a word of a list, then transform it: "the last word of the list, in capital letters".

The input tells neither choice, all combinations occur, and lists have any length. To follow such a
description, a network has to read both of its parts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from hypernet.data.overlap import EvaluationAnswers
from hypernet.data.synthetic.picking import distinct_lengths, distinguishable, one_among, only_one_of
from hypernet.data.synthetic.task_template import TaskTemplate, answer_patterns, of_list

Pick = Callable[[list[str]], str | None]
"""The words of a list -> one of them."""

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
"""Name -> (what is done to the word, noun phrase for it)."""

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
"""Name -> (which word, noun phrase for it)."""


def compositions(
    words: Sequence[str], categories: Mapping[str, Sequence[str]], unseen: EvaluationAnswers
) -> Iterator[TaskTemplate]:
    """Every transform of every pick, and of the one word of each category:
    "uppercase_of_the_animal".

    A pick that an evaluation task asks for is left out at the lengths of that task's lists: exact
    match looks past case and punctuation, so "the last of five, in brackets" would be "the last of
    five".
    """
    picks: dict[str, tuple[Pick, str, Callable[[random.Random, list[int]], str]]] = {
        name: (
            rule,
            noun_phrase,
            lambda rng, lengths: ", ".join(distinct_lengths(rng, words, rng.choice(lengths))),
        )
        for name, (rule, noun_phrase) in PICKS.items()
    }
    others: dict[str, list[str]] = {}
    for one, rest in distinguishable(categories):
        others.setdefault(one, []).append(rest)
    for one, rests in others.items():
        picks[one] = (
            only_one_of(categories[one]),
            f"the {one} of the list",
            lambda rng, lengths, one=one, rests=rests: one_among(  # type: ignore[misc]
                rng, categories[one], categories[rng.choice(rests)], rng.choice(lengths)
            ),
        )
    free = {
        name: [n for n in LENGTHS if not unseen.same_task(of_list(rule, [n]))]
        for name, (rule, _, _) in picks.items()
    }
    for transform_name, (transform, phrase) in TRANSFORMS.items():
        for pick_name, (rule, noun_phrase, draw) in picks.items():
            composed = _composed(rule, transform)
            if lengths := [n for n in free[pick_name] if not unseen.same_task(of_list(composed, [n]))]:
                yield TaskTemplate.from_rule(
                    f"{transform_name}_of_the_{pick_name}",
                    answer_patterns(
                        phrase.format(noun_phrase), "Given a list,", "The input is a list of words."
                    ),
                    lambda rng, draw=draw, lengths=lengths: draw(rng, lengths),  # type: ignore[misc]
                    of_list(composed, lengths),
                )


def _composed(pick: Pick, transform: Callable[[str], str]) -> Pick:
    def rule(words: list[str]) -> str | None:
        word = pick(words)
        return None if word is None else transform(word)

    return rule
