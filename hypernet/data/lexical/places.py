"""Countries, their regions, languages and money, in the terms of ISO 3166, ISO 639,
ISO 4217 and CLDR.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypernet.data.lexical.numerals import LANGUAGES
from hypernet.data.lexical.relation import Relation, inverted

COUNTRY, REGION, LANGUAGE = "a country", "a region", "a language"


def places() -> Iterator[Relation]:
    """Names and codes of places, in both directions where that is unique."""
    yield from _countries()
    yield from _regions()
    yield from _tongues()
    yield from _money()


def _countries() -> Iterator[Relation]:
    import pycountry
    from babel import Locale
    from babel.languages import get_official_languages

    english = Locale("en").territories
    countries = sorted((c for c in pycountry.countries if c.alpha_2 in english), key=lambda c: c.alpha_2)
    names = [english[c.alpha_2] for c in countries]
    two = [(english[c.alpha_2], c.alpha_2) for c in countries]
    three = [(english[c.alpha_2], c.alpha_3) for c in countries]
    yield Relation("country-code", "its two-letter country code", COUNTRY, two)
    yield Relation("code-country", "the country of the code", "a two-letter country code", inverted(two))
    yield Relation("country-code_3", "its three-letter country code", COUNTRY, three)
    yield Relation("code_3-country", "the country of the code", "a three-letter country code", inverted(three))
    yield Relation(
        "country-domain", "its internet domain", COUNTRY, [(n, f".{code.lower()}") for n, code in two]
    )
    for code, language in LANGUAGES.items():
        there, tongue = Locale(code).territories, language.lower()
        local = [(english[c.alpha_2], there[c.alpha_2]) for c in countries if c.alpha_2 in there]
        yield Relation(f"country-{tongue}", f"its name in {language}", COUNTRY, local)
        yield Relation(
            f"{tongue}-country", "the country in English", f"a country in {language}", inverted(local)
        )
    tongues = Locale("en").languages
    official = [(english[c.alpha_2], get_official_languages(c.alpha_2)) for c in countries]
    spoken = [(name, tongues[found[0]]) for name, found in official if found and found[0] in tongues]
    yield Relation("country-language", "the first official language of the country", COUNTRY, spoken)
    yield Relation("country-initial", "the first letter of the country", COUNTRY, [(n, n[0]) for n in names])
    yield Relation(
        "country-uppercase", "the country in capital letters", COUNTRY, [(n, n.upper()) for n in names]
    )


def _regions() -> Iterator[Relation]:
    import pycountry
    from babel import Locale

    english = Locale("en").territories
    regions = [r for r in pycountry.subdivisions if r.parent_code is None and r.country_code in english]
    named = Counter(r.name for r in regions)
    single = [r for r in regions if named[r.name] == 1]
    states = [(r.name, r.code[3:]) for r in regions if r.country_code == "US" and r.type == "State"]
    home = [(r.name, english[r.country_code]) for r in single]
    yield Relation("region-country", "the country in which the region lies", REGION, home)
    codes = [(r.name, r.country_code) for r in single]
    yield Relation("region-code", "the two-letter code of its country", REGION, codes)
    yield Relation("region-kind", "the kind of the region", REGION, [(r.name, r.type) for r in single])
    yield Relation("state-code", "the two-letter code of the state", "a US state", states)
    yield Relation("code-state", "the state of the code", "the code of a US state", inverted(states))


def _tongues() -> Iterator[Relation]:
    import pycountry
    from babel import Locale

    english = Locale("en").languages
    known = [(getattr(x, "alpha_2", ""), x.alpha_3) for x in pycountry.languages]
    known = [(two, three) for two, three in known if two in english]
    codes = [(english[two], two) for two, _ in known]
    yield Relation("language-code", "the two-letter code of the language", LANGUAGE, codes)
    yield Relation("code-language", "the language of the code", "a two-letter language code", inverted(codes))
    long = [(english[two], three) for two, three in known]
    yield Relation("language-code_3", "the three-letter code of the language", LANGUAGE, long)
    for code, language in LANGUAGES.items():
        there = Locale(code).languages
        local = [(english[two], there[two]) for two, _ in known if two in there]
        yield Relation(f"language-{language.lower()}", f"the language's name in {language}", LANGUAGE, local)


def _money() -> Iterator[Relation]:
    import pycountry

    coded = [(c.name, c.alpha_3) for c in pycountry.currencies]
    yield Relation("currency-code", "the three-letter code of the currency", "a currency", coded)
    yield Relation("code-currency", "the currency of the code", "a three-letter currency code", inverted(coded))
