"""Families of small tasks over the same inputs that differ only in what is asked.

If every training task has inputs of its own, a hypernetwork may ignore the
description: the input gives the task away. Here "pick the second of four", "pick
the longest of four" and "reverse the four" share their inputs, so nothing but the
description tells them apart. That is the pressure to read.

Everything is built from the training instances of given tasks (word lists with
labelled categories, single words, word pairs, number pairs in the manner of
function-vectors, Todd et al. 2024, and instruction-induction, Honovich et al.
2023). Given tasks that a family contains are built too, and others get more wordings
(`wordings.py`): they bring two or three, a built task has dozens. Tasks whose names
are in `taken` are not built: pass the names of the evaluation tasks, so that none of
them is ever trained on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from hypernet.training.data import Instance, Task
from hypernet.training.wordings import REWORDED

WORDINGS = 60
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
SLOTS: dict[str, tuple[str, ...]] = {
    "pick": ("pick", "select", "choose", "return", "output", "give", "find", "take", "report", "extract"),
    "write": ("write", "output", "return", "give", "print", "produce", "respond with", "answer with"),
    "item": ("item", "word", "element", "entry", "term"),
    "given": ("given", "input", "provided", "listed"),
    "end": (
        "",
        "",
        "",
        " Answer with it alone.",
        " Nothing else.",
        " Output only the answer.",
        " No explanation.",
    ),
}
"""What wordings vary in; `{pick}` in a pattern becomes one of these."""

INVERSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "country-capital": (
        "capital-country",
        (
            "{write} the country whose capital is given.{end}",
            "Which country has this capital?",
            "Name the country that this city is the capital of.{end}",
            "From a capital city to its country.{end}",
            "The input is a capital. {write} its country.",
        ),
    ),
    "english-french": (
        "french-english",
        (
            "Translate the French word into English.{end}",
            "{write} the English for this French word.{end}",
            "From French to English.{end}",
            "What does this French word mean in English?",
            "The input is French. {write} it in English.",
        ),
    ),
    "english-spanish": (
        "spanish-english",
        (
            "Translate the Spanish word into English.{end}",
            "{write} the English for this Spanish word.{end}",
            "From Spanish to English.{end}",
            "What does this Spanish word mean in English?",
            "The input is Spanish. {write} it in English.",
        ),
    ),
    "singular-plural": (
        "plural-singular",
        (
            "{write} the singular of the plural noun.{end}",
            "Make the word singular.{end}",
            "From plural to singular.{end}",
            "What is one of these called?{end}",
            "Turn the {given} plural into its singular form.{end}",
        ),
    ),
}
"""Pair tasks whose opposite direction is a task too: name -> (name of the inverse, its wordings)."""


@dataclass(frozen=True, slots=True)
class _Made:
    """One derived task before its instances are drawn."""

    name: str
    patterns: Sequence[str]
    draw: Callable[[random.Random], tuple[str, str]]


def derive(tasks: Sequence[Task], taken: Collection[str], *, instances: int = 200, seed: int = 0) -> list[Task]:
    """Build every family that the given tasks have material for.

    Args:
        tasks: training tasks; only what their `split_instances` gives to training is used.
        taken: names (`Task.name`) that must not be built: those of evaluation tasks.
        instances: how many to draw per task; duplicates are dropped.
        seed: of the draws; each task has a stream of its own.
    """
    material = {t.name: [(i.input, i.output[0]) for i in t.split_instances()[0]] for t in tasks}
    words = sorted({w for pairs in material.values() for text, _ in pairs for w in _listed(text)})
    made: list[_Made] = []
    if words:
        made += [*_positions(words), *_orders(words), *_lists(words), *_letters(words)]
    made += [*_odd_one_out(_categories(material)), *_inverses(material), *_numbers(material)]
    made += _reworded(material)
    return [_task(m, instances, seed) for m in made if m.name not in taken]


def _task(made: _Made, instances: int, seed: int) -> Task:
    rng = random.Random(f"{seed}:{made.name}")
    drawn = dict(made.draw(rng) for _ in range(instances))
    return Task(
        task=f"derived_{made.name}",
        name=made.name,
        derived=True,
        descriptions=_wordings(made.patterns, rng),
        instances=[Instance(input=text, output=[answer]) for text, answer in drawn.items()],
    )


def _wordings(patterns: Sequence[str], rng: random.Random) -> list[str]:
    """Up to `WORDINGS` different fillings of the patterns."""
    found: dict[str, None] = {}
    for _ in range(4 * WORDINGS):
        pattern = rng.choice(patterns)
        text = re.sub(r"\{(\w+)\}", lambda slot: rng.choice(SLOTS[slot[1]]), pattern)
        text = re.sub(r"(^|[.?] )([a-z])", lambda start: start[1] + start[2].upper(), text)
        found[text] = None
        if len(found) == WORDINGS:
            break
    return list(found)


def _listed(text: str) -> list[str]:
    """The words of "a, b, c"; nothing for other texts."""
    parts = text.split(", ")
    return parts if len(parts) > 2 and all(re.fullmatch(r"[a-z-]+", p) for p in parts) else []


def _categories(material: Mapping[str, list[tuple[str, str]]]) -> dict[str, list[str]]:
    """Category -> words, read off the answers of the "animal_v_object_3" tasks."""
    found: dict[str, set[str]] = {}
    for name, pairs in material.items():
        if match := re.fullmatch(r"([a-z]+)_v_[a-z]+_\d", name):
            found.setdefault(match[1], set()).update(answer for _, answer in pairs)
    return {category: sorted(words) for category, words in found.items()}


def _positions(words: Sequence[str]) -> Iterator[_Made]:
    """Pick by place: "choose_second_of_4"."""
    for n in (3, 4, 5, 6):
        places = {o: k for k, o in enumerate(ORDINALS[: n - 1])} | {"last": n - 1}
        if n % 2:
            places["middle"] = n // 2
        if n > 3:
            places["second to last"] = n - 2
        for place, k in places.items():
            yield _Made(
                f"choose_{place.replace(' ', '_')}_of_{n}",
                (
                    f"{{pick}} the {place} {{item}} of the list.{{end}}",
                    f"{{pick}} the {place} of the {COUNTS[n]} {{item}}s.{{end}}",
                    f"{{pick}} the {{item}} in {place} position out of {COUNTS[n]}.{{end}}",
                    f"From {COUNTS[n]} comma-separated words, {{pick}} the {place} one.{{end}}",
                    f"Which {{item}} comes {place} in the list?",
                    f"Given {n} {{item}}s, copy the {place} one.{{end}}",
                ),
                lambda rng, n=n, k=k: (  # type: ignore[misc]
                    ", ".join(chosen := rng.sample(words, n)),
                    chosen[k],
                ),
            )


def _orders(words: Sequence[str]) -> Iterator[_Made]:
    """Pick by the alphabet or by length."""
    rules: dict[str, tuple[Callable[[list[str]], str], str]] = {
        "alphabetically_first": (min, "alphabetically first"),
        "alphabetically_last": (max, "alphabetically last"),
        "longest_of": (lambda chosen: max(chosen, key=len), "longest"),
        "shortest_of": (lambda chosen: min(chosen, key=len), "shortest"),
    }
    for n in (3, 4, 5, 6):
        for name, (rule, said) in rules.items():
            yield _Made(
                f"{name}_{n}",
                (
                    f"{{pick}} the {said} {{item}} out of {COUNTS[n]}.{{end}}",
                    f"{{pick}} the {said} of the {{given}} {{item}}s.{{end}}",
                    f"Which of the {COUNTS[n]} words is the {said}?",
                    f"Look at all {COUNTS[n]} words and {{pick}} the {said} one.{{end}}",
                    f"The answer is the {said} {{item}} in the list.{{end}}",
                ),
                lambda rng, n=n, rule=rule: (  # type: ignore[misc]
                    ", ".join(chosen := _of_different_lengths(rng, words, n)),
                    rule(chosen),
                ),
            )


def _of_different_lengths(rng: random.Random, words: Sequence[str], n: int) -> list[str]:
    """So that "the longest" has one answer."""
    by_length: dict[int, list[str]] = {}
    for word in words:
        by_length.setdefault(len(word), []).append(word)
    return [rng.choice(by_length[length]) for length in rng.sample(sorted(by_length), n)]


def _lists(words: Sequence[str]) -> Iterator[_Made]:
    """Rewrite a whole list."""
    rules: dict[str, tuple[Callable[[list[str]], str], str, str]] = {
        "reverse": (lambda c: ", ".join(c[::-1]), "in reverse order", "Reverse the list"),
        "sort": (lambda c: ", ".join(sorted(c)), "in alphabetical order", "Sort the words alphabetically"),
        "drop_first": (
            lambda c: ", ".join(c[1:]),
            "without the first one",
            "Remove the list's first word",
        ),
        "drop_last": (lambda c: ", ".join(c[:-1]), "without the last one", "Remove the list's last word"),
        "first_and_last": (
            lambda c: f"{c[0]}, {c[-1]}",
            "only first and last",
            "Keep both ends of the list",
        ),
        "shout": (lambda c: ", ".join(c).upper(), "in capital letters", "Uppercase every word of the list"),
        "join": (" ".join, "separated by spaces", "Replace the commas by spaces"),
        "initials": (
            lambda c: ", ".join(w[0] for w in c),
            "as initials",
            "Cut each word to its initial",
        ),
        "copy": (", ".join, "unchanged", "Repeat the list exactly"),
    }
    for n in (3, 4):
        for name, (rule, how, said) in rules.items():
            yield _Made(
                f"{name}_list_of_{n}",
                (
                    f"{{write}} the {COUNTS[n]} {{given}} words {how}.{{end}}",
                    f"{{write}} the list of {{item}}s {how}.{{end}}",
                    f"{said}.{{end}}",
                    f"Given {n} words: {said[0].lower()}{said[1:]}.{{end}}",
                ),
                lambda rng, n=n, rule=rule: (  # type: ignore[misc]
                    ", ".join(chosen := rng.sample(words, n)),
                    rule(chosen),
                ),
            )


def _letters(words: Sequence[str]) -> Iterator[_Made]:
    """Spell, cut and dress single words."""
    plain = [w for w in words if w.isalpha() and len(w) > 3]
    rules: dict[str, tuple[Callable[[str], str], str]] = {
        "uppercase_word": (str.upper, "the word in capital letters"),
        "lowercase_word": (str.lower, "the word in small letters"),
        "uppercase_second_letter": (lambda w: w[1].upper(), "the second letter as a capital"),
        "second_letter": (lambda w: w[1], "the second letter of the word"),
        "third_letter": (lambda w: w[2], "the third letter of the word"),
        "last_letter": (lambda w: w[-1], "the last letter of the word"),
        "first_two_letters": (lambda w: w[:2], "the first two letters of the word"),
        "last_two_letters": (lambda w: w[-2:], "the last two letters of the word"),
        "first_three_letters": (lambda w: w[:3], "the first three letters of the word"),
        "last_three_letters": (lambda w: w[-3:], "the last three letters of the word"),
        "drop_first_letter": (lambda w: w[1:], "the word without its first letter"),
        "drop_last_letter": (lambda w: w[:-1], "the word without its last letter"),
        "first_and_last_letter": (lambda w: w[0] + w[-1], "the first and the last letter of the word"),
        "double_word": (lambda w: f"{w} {w}", "the word twice"),
        "shout_word": (lambda w: f"{w}!", "the word with an exclamation mark"),
        "question_word": (lambda w: f"{w}?", "the word with a question mark"),
        "quote_word": (lambda w: f'"{w}"', "the word in quotation marks"),
        "bracket_word": (lambda w: f"({w})", "the word in brackets"),
        "the_word": (lambda w: f"the {w}", 'the word with "the" before it'),
        "spell_with_hyphens": ("-".join, "the letters of the word with hyphens between them"),
        "copy_word": (lambda w: w, "the word as it is"),
    }
    dressed = (str.lower, str.upper, str.capitalize)
    for name, (rule, said) in rules.items():
        yield _Made(
            name,
            (
                f"{{write}} {said}.{{end}}",
                f"Given a word, {{write}} {said}.{{end}}",
                f"The input is one word. {{write}} {said}.{{end}}",
                f"Your answer should be {said}.{{end}}",
                f"{said}.{{end}}",
            ),
            lambda rng, rule=rule: (text := rng.choice(dressed)(rng.choice(plain)), rule(text)),  # type: ignore[misc]
        )


def _odd_one_out(categories: Mapping[str, Sequence[str]]) -> Iterator[_Made]:
    """Pick the one word of a category among words of another: "fruit_v_color_4"."""
    for one, rest in permutations(categories, 2):
        for n in (3, 4, 5):
            yield _Made(
                f"{one}_v_{rest}_{n}",
                (
                    f"{{pick}} the {one} among the {COUNTS[n]} {{item}}s.{{end}}",
                    f"{{pick}} the {one}; the others belong to the {rest} kind.{{end}}",
                    f"Which of the {{given}} words is of the kind {one}?",
                    f"{{pick}} the only {{item}} that is of the {one} kind.{{end}}",
                    f"Exactly one of {COUNTS[n]} words is of the {one} kind: {{pick}} it.{{end}}",
                ),
                lambda rng, n=n, one=one, rest=rest: _hidden(rng, categories[one], categories[rest], n),  # type: ignore[misc]
            )


def _hidden(rng: random.Random, one: Sequence[str], rest: Sequence[str], n: int) -> tuple[str, str]:
    answer = rng.choice(one)
    listed = [answer, *rng.sample([w for w in rest if w not in one], n - 1)]
    rng.shuffle(listed)
    return ", ".join(listed), answer


def _inverses(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[_Made]:
    """Pair tasks the other way round, where an answer has a single question."""
    for name, (inverse, patterns) in INVERSES.items():
        if pairs := material.get(name):
            yield _Made(inverse, patterns, lambda rng, pairs=pairs: rng.choice(pairs)[::-1])  # type: ignore[misc]


def _reworded(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[_Made]:
    """Given tasks as they are, asked for in more ways."""
    for name, patterns in REWORDED.items():
        if pairs := material.get(name):
            yield _Made(name, patterns, lambda rng, pairs=pairs: rng.choice(pairs))  # type: ignore[misc]


def _numbers(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[_Made]:
    """Other questions about the number pairs of `sum` and `diff`."""
    inputs = [text for name in ("sum", "diff") for text, _ in material.get(name, [])]
    pairs = [text for text in inputs if re.fullmatch(r"\d+ \d+", text)]
    rules: dict[str, tuple[Callable[[int, int], object], str]] = {
        "larger_number": (max, "the larger of the two numbers"),
        "smaller_number": (min, "the smaller of the two numbers"),
        "first_number": (lambda a, _: a, "the first of the two numbers"),
        "second_number": (lambda _, b: b, "the second of the two numbers"),
        "swap_numbers": (lambda a, b: f"{b} {a}", "the two numbers in swapped order"),
        "equation": (lambda a, b: f"{a} + {b}", "the two numbers with a plus sign between them"),
        "comma_numbers": (lambda a, b: f"{a}, {b}", "the two numbers with a comma between them"),
        "first_plus_one": (lambda a, _: a + 1, "the first number plus one"),
        "second_plus_one": (lambda _, b: b + 1, "the second number plus one"),
    }
    for name, (rule, said) in rules.items() if pairs else ():
        yield _Made(
            name,
            (
                f"{{write}} {said}.{{end}}",
                f"Given two numbers, {{write}} {said}.{{end}}",
                f"The input holds two numbers. {{write}} {said}.{{end}}",
                f"Your answer should be {said}.{{end}}",
            ),
            lambda rng, rule=rule: (text := rng.choice(pairs), str(rule(*map(int, text.split())))),  # type: ignore[misc]
        )
