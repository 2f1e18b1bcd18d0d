"""Tasks from public word data: inflections, numerals, places, dates, letters.

The given tasks hold a few dozen lexical relations (antonyms, capitals, plurals). BATS (Gladkova et
al. 2016) and function vectors (Todd et al. 2024) sort such relations into inflection, derivation,
lexicography and encyclopaedia. A dictionary or a standard supplies many of them. They are built
here, often over the same questions: a number, a country, a verb. Libraries supply the data (extra
`lexical`).

Evaluation tasks stay unseen (`hypernet.data.overlap`): a relation that gives their answers is not
built, under any name, and a pair of theirs is never shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hypernet.data.lexical.alphabet import alphabet
from hypernet.data.lexical.calendar import dates
from hypernet.data.lexical.inflection import inflections
from hypernet.data.lexical.numerals import numerals
from hypernet.data.lexical.places import places
from hypernet.data.lexical.relation import Relation
from hypernet.data.overlap import SAME_PAIRS_SHARE, EvaluationAnswers, lookup
from hypernet.data.synthetic import build, material_of, word_categories, words_of_lists
from hypernet.data.tasks import Task

MIN_PAIRS = 7
"""A week has as many days. A relation of fewer pairs teaches little and is not built."""


def relate(
    tasks: Sequence[Task], evaluation: Sequence[Task], *, instances: int = 200, seed: int = 0
) -> list[Task]:
    """Build every relation, except those that an evaluation task asks for.

    Args:
        tasks: training tasks; the words of their lists are inflected and spelt.
        evaluation: tasks that have to stay unseen.
        instances: how many to draw per task; duplicates are dropped.
        seed: of the draws; each task has a stream of its own.

    Raises:
        ModuleNotFoundError: the libraries with the data are not installed.
    """
    unseen = EvaluationAnswers(evaluation)
    relations = []
    material = material_of(tasks)
    for relation in _all(word_categories(material), words_of_lists(material)):
        if unseen.same_task(lookup(relation.pairs), SAME_PAIRS_SHARE):
            continue
        pairs = [pair for pair in relation.pairs if not unseen.holds(*pair)]
        if len(pairs) >= MIN_PAIRS:
            relations.append(replace(relation, pairs=pairs))
    return build((relation.template() for relation in relations), unseen, instances, seed)


def _all(categories: Mapping[str, Sequence[str]], words: Sequence[str]) -> Iterator[Relation]:
    yield from inflections(categories)
    yield from numerals()
    yield from places()
    yield from dates()
    yield from alphabet(words)
