"""Pick one word of a list: by its place, by the alphabet, by its length, by its kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from operator import itemgetter

from hypernet.data.synthetic.task_template import COUNTS, TaskTemplate, of_list

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")

SHARED = 0.1
"""Fraction of a category's words that another may have too. Such words are not used."""
LONGEST_LIST = 6
"""Number of different word lengths that lists with one longest word need."""


def positions(words: Sequence[str]) -> Iterator[TaskTemplate]:
    """Pick by place: "choose_second_of_4"."""
    for n in (3, 4, 5, 6):
        places = {o: k for k, o in enumerate(ORDINALS[: n - 1])} | {"last": n - 1}
        if n % 2:
            places["middle"] = n // 2
        if n > 3:
            places["second to last"] = n - 2
        for place, k in places.items():
            yield TaskTemplate.from_rule(
                f"choose_{place.replace(' ', '_')}_of_{n}",
                (
                    f"{{pick}} the {place} {{item}} of the list.{{end}}",
                    f"{{pick}} the {place} of the {COUNTS[n]} {{item}}s.{{end}}",
                    f"{{pick}} the {{item}} in {place} position out of {COUNTS[n]}.{{end}}",
                    f"From {COUNTS[n]} comma-separated words, {{pick}} the {place} one.{{end}}",
                    f"Which is the {place} {{item}} of the list?",
                    f"Given {n} {{item}}s, copy the {place} one.{{end}}",
                ),
                lambda rng, n=n: ", ".join(rng.sample(words, n)),  # type: ignore[misc]
                of_list(itemgetter(k), [n]),
            )


def orders(words: Sequence[str]) -> Iterator[TaskTemplate]:
    """Pick by the alphabet or by length."""
    rules: dict[str, tuple[Callable[[list[str]], str], str]] = {
        "alphabetically_first": (min, "alphabetically first"),
        "alphabetically_last": (max, "alphabetically last"),
        "longest_of": (lambda chosen: max(chosen, key=len), "longest"),
        "shortest_of": (lambda chosen: min(chosen, key=len), "shortest"),
    }
    for n in (3, 4, 5, 6):
        for name, (rule, adjective) in rules.items():
            yield TaskTemplate.from_rule(
                f"{name}_{n}",
                (
                    f"{{pick}} the {adjective} {{item}} out of {COUNTS[n]}.{{end}}",
                    f"{{pick}} the {adjective} of the {{given}} {{item}}s.{{end}}",
                    f"Which of the {COUNTS[n]} words is the {adjective}?",
                    f"Look at all {COUNTS[n]} words and {{pick}} the {adjective} one.{{end}}",
                    f"The answer is the {adjective} {{item}} in the list.{{end}}",
                ),
                lambda rng, n=n: ", ".join(distinct_lengths(rng, words, n)),  # type: ignore[misc]
                of_list(rule, [n]),
            )


def distinct_lengths(rng: random.Random, words: Sequence[str], n: int) -> list[str]:
    """Draw n words of different lengths, so that "the longest" has one answer."""
    chosen: dict[int, str] = {}
    while len(chosen) < n:  # drawn by word, not by length: otherwise the few long words are in every list
        word = rng.choice(words)
        chosen.setdefault(len(word), word)
    return list(chosen.values())


def odd_one_out(categories: Mapping[str, Sequence[str]]) -> Iterator[TaskTemplate]:
    """Pick the one word of a category among words of another: "fruit_v_color_4"."""
    for one, rest in distinguishable(categories):
        for n in (3, 4, 5):
            yield TaskTemplate.from_rule(
                f"{one}_v_{rest}_{n}",
                (
                    f"{{pick}} the {one} among the {COUNTS[n]} {{item}}s.{{end}}",
                    f"{{pick}} the {one}; the others belong to the {rest} kind.{{end}}",
                    f"Which of the {{given}} words is of the kind {one}?",
                    f"{{pick}} the only {{item}} that is of the {one} kind.{{end}}",
                    f"Exactly one of {COUNTS[n]} words is of the {one} kind: {{pick}} it.{{end}}",
                ),
                lambda rng, n=n, one=one, rest=rest: one_among(rng, categories[one], categories[rest], n),  # type: ignore[misc]
                of_list(only_one_of(categories[one]), [n]),
            )


def distinguishable(categories: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Ordered pairs of categories with hardly a word in common:
    some adjectives are concepts too.
    """

    def shared(one: str, rest: str) -> float:
        smaller = min(len(categories[one]), len(categories[rest]))
        return len(set(categories[one]) & set(categories[rest])) / smaller

    return [pair for pair in permutations(categories, 2) if shared(*pair) <= SHARED]


def one_among(rng: random.Random, one: Sequence[str], rest: Sequence[str], n: int) -> str:
    """A list of n words: one of the first category among words of the second."""
    shared = set(one) & set(rest)
    answer = rng.choice([w for w in one if w not in shared])
    listed = [answer, *rng.sample([w for w in rest if w not in shared], n - 1)]
    rng.shuffle(listed)
    return ", ".join(listed)


def only_one_of(category: Sequence[str]) -> Callable[[list[str]], str | None]:
    """Rule: the only word of a list that is of the category. None if there is none, or several."""
    members = frozenset(category)

    def rule(words: list[str]) -> str | None:
        found = [word for word in words if word in members]
        return found[0] if len(found) == 1 else None

    return rule
