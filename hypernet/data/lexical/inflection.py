"""Forms of verbs, nouns and adjectives, as the inflectional part of BATS has them (Gladkova et al.

2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hypernet.data.lexical.relation import Relation, inverted

VERB, GERUND, THIRD = "a verb", "a verb ending in -ing", "a verb in the third person"
NOUN, ADJECTIVE, COMPARATIVE = "a noun", "an adjective", "a comparative"

LONGEST_COMPARED = 6
"""Letters: a longer adjective mostly takes "more" and "most"."""


def inflections(categories: Mapping[str, Sequence[str]]) -> Iterator[Relation]:
    """Every form of the words of these categories; words that the dictionary lacks are left out."""
    yield from _verbs(categories.get("verb", ()))
    yield from _nouns(sorted({*categories.get("animal", ()), *categories.get("object", ())}))
    yield from _adjectives(categories.get("adjective", ()))


def _verbs(words: Sequence[str]) -> Iterator[Relation]:
    gerund, third = _forms(words, "VBG"), _forms(words, "VBZ")
    an_ing, a_third, the_base = (
        "the -ing form of the verb",
        "the verb in the third person singular",
        "the base form of the verb",
    )
    both = [w for w in words if w in third and w in gerund]
    yield Relation("verb-gerund", an_ing, VERB, [*gerund.items()])
    yield Relation("verb-third_person", a_third, VERB, [*third.items()])
    yield Relation("gerund-verb", the_base, GERUND, inverted([*gerund.items()]))
    yield Relation("third_person-verb", the_base, THIRD, inverted([*third.items()]))
    yield Relation("third_person-gerund", an_ing, THIRD, [(third[w], gerund[w]) for w in both])
    yield Relation("gerund-third_person", a_third, GERUND, [(gerund[w], third[w]) for w in both])
    phrases = {
        "infinitive": ("to {}", 'the infinitive with "to"'),
        "future": ("will {}", 'the future form with "will"'),
        "prohibition": ("do not {}", 'the prohibition with "do not"'),
        "invitation": ("let us {}", 'the invitation with "let us"'),
        "ability": ("can {}", 'the verb after "can"'),
    }
    for name, (form, how) in phrases.items():
        yield Relation(f"verb-{name}", how, VERB, [(w, form.format(w)) for w in sorted(gerund)])
    progressive = [(w, f"is {gerund[w]}") for w in sorted(gerund)]
    yield Relation("verb-progressive", "the present progressive for he", VERB, progressive)


def _nouns(words: Sequence[str]) -> Iterator[Relation]:
    plural = _forms(words, "NNS")
    known = sorted(plural)
    with_article = [(w, f"{'an' if w[0] in 'aeio' else 'a'} {w}") for w in known if not w.startswith("u")]
    yield Relation("noun-possessive", "the possessive of the noun", NOUN, [(w, f"{w}'s") for w in known])
    yield Relation("noun-indefinite", "the noun with its indefinite article", NOUN, with_article)
    yield Relation("noun-this", 'the noun after "this"', NOUN, [(w, f"this {w}") for w in known])
    for before in ("two", "many", "these"):
        pairs = [(w, f"{before} {plural[w]}") for w in known]
        yield Relation(f"noun-{before}", f'the plural after "{before}"', NOUN, pairs)
    capital = [(w, plural[w].upper()) for w in known]
    yield Relation("noun-capital_plural", "the plural in capital letters", NOUN, capital)
    yield Relation(
        "plural-one", 'the singular after "one"', "a plural", [(plural[w], f"one {w}") for w in known]
    )


def _adjectives(words: Sequence[str]) -> Iterator[Relation]:
    short = [w for w in words if len(w) <= LONGEST_COMPARED]
    comparative, superlative = _forms(short, "JJR"), _forms(short, "JJS")
    plain, most = "the plain form of the adjective", "the superlative of the adjective"
    yield Relation(
        "adjective-comparative", "the comparative of the adjective", ADJECTIVE, [*comparative.items()]
    )
    yield Relation("adjective-superlative", most, ADJECTIVE, [*superlative.items()])
    yield Relation("comparative-adjective", plain, COMPARATIVE, inverted([*comparative.items()]))
    yield Relation("superlative-adjective", plain, "a superlative", inverted([*superlative.items()]))
    both = [(comparative[w], superlative[w]) for w in short if w in comparative and w in superlative]
    yield Relation("comparative-superlative", most, COMPARATIVE, both)
    for before in ("very", "more", "not"):
        pairs = [(w, f"{before} {w}") for w in words]
        yield Relation(f"adjective-{before}", f'the adjective after "{before}"', ADJECTIVE, pairs)


def _forms(words: Sequence[str], tag: str) -> dict[str, str]:
    """Words with their form of this Penn Treebank tag, where the dictionary has one."""
    from lemminflect import getInflection

    found = ((w, getInflection(w, tag, inflect_oov=False)) for w in words)
    return {w: forms[0] for w, forms in found if forms}
