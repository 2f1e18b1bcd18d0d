"""Relations of months and days: successor, number, abbreviation, name in other languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hypernet.data.lexical.numerals import LANGUAGES
from hypernet.data.lexical.relation import Relation
from hypernet.data.overlap import Pairs


def dates() -> Iterator[Relation]:
    """Relations of months and days.

    Names are few, so each occurs in capital and in small letters too.
    """
    from babel import Locale

    for cycle, table in (("month", "months"), ("day", "days")):
        names = {code: _in_order(getattr(Locale(code), table)["format"]["wide"]) for code in ("en", *LANGUAGES)}
        english, of = names["en"], f"a {cycle}"
        yield Relation(f"{cycle}-next", f"the {cycle} after it", of, _all_cases(english, _turned(english, 1)))
        yield Relation(
            f"{cycle}-previous", f"the {cycle} before it", of, _all_cases(english, _turned(english, -1))
        )
        yield Relation(
            f"{cycle}-second_next", f"the {cycle} after the next", of, _all_cases(english, _turned(english, 2))
        )
        short = [name[:3] for name in english]
        yield Relation(f"{cycle}-short", f"the {cycle} as three letters", of, _all_cases(english, short))
        yield Relation(
            f"short-{cycle}", f"the {cycle} in full", f"an abbreviated {cycle}", _all_cases(short, english)
        )
        places = [str(k) for k in range(1, len(english) + 1)]
        yield Relation(
            f"{cycle}-number", f"the place of the {cycle} as a number", of, _all_cases(english, places)
        )
        for code, language in LANGUAGES.items():
            other, tongue = names[code], language.lower()
            yield Relation(f"{cycle}-{tongue}", f"the {cycle} in {language}", of, _all_cases(english, other))
            yield Relation(
                f"{tongue}-{cycle}",
                f"the {cycle} in English",
                f"a {cycle} in {language}",
                _all_cases(other, english),
            )


def _in_order(names: Mapping[int, str]) -> list[str]:
    """CLDR counts months from 1, and days from Monday = 0."""
    return [names[k] for k in sorted(names)]


def _turned(names: Sequence[str], by: int) -> list[str]:
    return [names[(k + by) % len(names)] for k in range(len(names))]


def _all_cases(questions: Sequence[str], answers: Sequence[str]) -> Pairs:
    return [
        (case(question), answer)
        for question, answer in zip(questions, answers, strict=True)
        for case in (str, str.upper, str.lower)
    ]
