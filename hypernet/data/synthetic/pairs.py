"""Given pairs: in the other direction, or as they are with more descriptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hypernet.data.synthetic.paraphrases import REWORDED
from hypernet.data.synthetic.task_template import TaskTemplate

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
"""Pair tasks whose opposite direction is a task too: name -> (name of the inverse, its patterns).
"""


def inverses(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[TaskTemplate]:
    """Pair tasks in the other direction."""
    for name, (inverse, patterns) in INVERSES.items():
        if pairs := material.get(name):
            yield TaskTemplate.from_pairs(inverse, patterns, [(answer, question) for question, answer in pairs])


def reworded(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[TaskTemplate]:
    """Given tasks as they are, with more descriptions."""
    for name, patterns in REWORDED.items():
        if pairs := material.get(name):
            yield TaskTemplate.from_pairs(name, patterns, pairs)
