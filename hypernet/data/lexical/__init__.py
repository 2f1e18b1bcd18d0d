"""Relations that public word data knows: inflections, numerals, places, dates, letters.

What given tasks hold of lexical relations (antonyms, capitals, plurals) is a few dozen. BATS (Gladkova
et al. 2016) and function vectors (Todd et al. 2024) sort such relations into inflection, derivation,
lexicography and encyclopaedia; those that a dictionary or a standard can fill are built here, many of
them over the same questions: a number, a country, a verb. The data come with libraries (extra `lexical`).

Evaluation tasks stay unseen in two ways: a relation that answers their questions as they do is not built,
whatever it is called, and a pair of theirs is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hypernet.data.lexical.alphabet import alphabet
from hypernet.data.lexical.calendar import dates
from hypernet.data.lexical.inflection import inflections
from hypernet.data.lexical.numerals import numerals
from hypernet.data.lexical.places import places
from hypernet.data.lexical.relation import Pairs, Relation
from hypernet.data.synthetic import material_of, word_categories, words_of_lists
from hypernet.data.tasks import Task

FEWEST = 7
"""A week has so many days; a relation of fewer pairs teaches little and is not built."""
SAME = 0.25
"""Share of common questions that an evaluation task may answer alike before it counts as the same task."""


def relate(
    tasks: Sequence[Task], evaluation: Sequence[Task], *, instances: int = 200, seed: int = 0
) -> list[Task]:
    """Build every relation, less what the evaluation tasks ask for.

    Args:
        tasks: training tasks; the words of their lists are inflected and spelt.
        evaluation: tasks that have to stay unseen.
        instances: how many to draw per task; duplicates are dropped.
        seed: of the draws; each task has a stream of its own.

    Raises:
        ModuleNotFoundError: the libraries with the data are not installed.
    """
    known = [{_plain(i.input): {_plain(o) for o in i.output} for i in task.instances} for task in evaluation]
    built = []
    material = material_of(tasks)
    for relation in _all(word_categories(material), words_of_lists(material)):
        if not any(_answers_alike(relation.pairs, task) for task in known):
            pairs = [p for p in relation.pairs if not any(_agrees(p, task) for task in known)]
            if len(pairs) >= FEWEST:
                built.append(replace(relation, pairs=pairs).template().task(instances, seed))
    return built


def _all(categories: Mapping[str, Sequence[str]], words: Sequence[str]) -> Iterator[Relation]:
    yield from inflections(categories)
    yield from numerals()
    yield from places()
    yield from dates()
    yield from alphabet(words)


def _answers_alike(pairs: Pairs, task: Mapping[str, set[str]]) -> bool:
    common = [pair for pair in pairs if _plain(pair[0]) in task]
    return sum(_agrees(pair, task) for pair in common) > SAME * len(common)


def _agrees(pair: tuple[str, str], task: Mapping[str, set[str]]) -> bool:
    return _plain(pair[1]) in task.get(_plain(pair[0]), ())


def _plain(text: str) -> str:
    """As exact match sees it: without case and punctuation."""
    return re.sub(r"\W", "", text.lower())
