"""Properties of numbers, and their names in other languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypernet.data.lexical.relation import Relation, inverted

NUMBERS = range(1, 200)
LANGUAGES = {
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
}
ROMAN = (("C", 100), ("XC", 90), ("L", 50), ("XL", 40), ("X", 10), ("IX", 9), ("V", 5), ("IV", 4), ("I", 1))
NUMBER = "a number"


def _roman(number: int) -> str:
    written = ""
    for sign, value in ROMAN:
        count, number = divmod(number, value)
        written += sign * count
    return written


RULES: dict[str, tuple[Callable[[int], object], str]] = {
    "plus_one": (lambda n: n + 1, "the number plus one"),
    "minus_one": (lambda n: n - 1, "the number minus one"),
    "plus_ten": (lambda n: n + 10, "the number plus ten"),
    "double": (lambda n: 2 * n, "twice the number"),
    "next_ten": (lambda n: n // 10 * 10 + 10, "the next multiple of ten above the number"),
    "parity": (lambda n: "odd" if n % 2 else "even", "the parity of the number, even or odd"),
    "last_digit": (lambda n: n % 10, "the last digit of the number"),
    "first_digit": (lambda n: str(n)[0], "the first digit of the number"),
    "reversed": (lambda n: str(n)[::-1], "the digits of the number in reverse order"),
    "digit_count": (lambda n: len(str(n)), "the number of digits"),
    "digit_sum": (lambda n: sum(map(int, str(n))), "the sum of the digits"),
    "spaced": (lambda n: " ".join(str(n)), "the digits with spaces between them"),
    "percent": (lambda n: f"{n}%", "the number as a percentage"),
    "dollars": (lambda n: f"${n}", "the number as an amount of dollars"),
    "decimals": (lambda n: f"{n}.00", "the number with two decimals"),
    "negative": (lambda n: -n, "the number with a minus sign"),
    "three_digits": (lambda n: f"{n:03d}", "the number as three digits, with zeros in front"),
    "roman": (_roman, "the number as a Roman numeral"),
    "size": (lambda n: "large" if n >= 100 else "small", "its size: large from a hundred on, else small"),
}
"""Name -> (number -> answer, noun phrase for it)."""


def numerals() -> Iterator[Relation]:
    """All relations of the numbers from 1 to 199, and back from words to digits."""
    from num2words import num2words

    for name, (rule, noun_phrase) in RULES.items():
        yield Relation(f"number-{name}", noun_phrase, NUMBER, [(str(n), str(rule(n))) for n in NUMBERS])
    roman = [(str(n), _roman(n)) for n in NUMBERS]
    yield Relation("roman-number", "the number in digits", "a Roman numeral", inverted(roman))
    short = [(str(n), num2words(n, to="ordinal_num")) for n in NUMBERS]
    yield Relation("number-ordinal_digits", "the ordinal in digits", NUMBER, short)
    long = [(str(n), num2words(n, to="ordinal")) for n in NUMBERS]
    yield Relation("number-ordinal", "the ordinal in English words", NUMBER, long)
    yield Relation("ordinal-number", "the number in digits", "an ordinal in words", inverted(long))
    for code, language in LANGUAGES.items():
        words = [(str(n), num2words(n, lang=code)) for n in NUMBERS]
        yield Relation(f"number-{language.lower()}", f"the number in {language} words", NUMBER, words)
        yield Relation(
            f"{language.lower()}-number",
            "the number in digits",
            f"a number in {language} words",
            inverted(words),
        )
