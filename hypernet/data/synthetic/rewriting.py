"""Rewrite a whole list, or spell, cut and decorate a single word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hypernet.data.synthetic.task_template import COUNTS, TaskTemplate, answer_patterns, of_list


def lists(words: Sequence[str]) -> Iterator[TaskTemplate]:
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
            "cut down to the first and the last",
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
        for name, (rule, how, imperative) in rules.items():
            yield TaskTemplate.from_rule(
                f"{name}_list_of_{n}",
                (
                    f"{{write}} the {COUNTS[n]} {{given}} words {how}.{{end}}",
                    f"{{write}} the list of {{item}}s {how}.{{end}}",
                    f"{imperative}.{{end}}",
                    f"Given {n} words: {imperative[0].lower()}{imperative[1:]}.{{end}}",
                ),
                lambda rng, n=n: ", ".join(rng.sample(words, n)),  # type: ignore[misc]
                of_list(rule, [n]),
            )


def letters(words: Sequence[str]) -> Iterator[TaskTemplate]:
    """Spell, cut and decorate single words."""
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
    cases = (str.lower, str.upper, str.capitalize)
    for name, (rule, noun_phrase) in rules.items():
        yield TaskTemplate.from_rule(
            name,
            answer_patterns(noun_phrase, "Given a word,", "The input is one word."),
            lambda rng: rng.choice(cases)(rng.choice(plain)),
            lambda text, rule=rule: rule(text) if text.isalpha() and len(text) > 2 else None,  # type: ignore[misc]
        )
