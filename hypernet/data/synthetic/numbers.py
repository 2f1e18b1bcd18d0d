"""Other questions about the number pairs of `sum` and `diff`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from hypernet.data.synthetic.task_template import TaskTemplate, answer_patterns


def numbers(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[TaskTemplate]:
    """Other questions about the number pairs of `sum` and `diff`."""
    inputs = [text for name in ("sum", "diff") for text, _ in material.get(name, [])]
    pairs = [text for text in inputs if _is_pair(text)]
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
    for name, (rule, noun_phrase) in rules.items() if pairs else ():
        yield TaskTemplate.from_rule(
            name,
            answer_patterns(noun_phrase, "Given two numbers,", "The input holds two numbers.")[:-1],
            lambda rng: rng.choice(pairs),
            lambda text, rule=rule: str(rule(*map(int, text.split()))) if _is_pair(text) else None,  # type: ignore[misc]
        )


def _is_pair(text: str) -> bool:
    return re.fullmatch(r"\d+ \d+", text) is not None
