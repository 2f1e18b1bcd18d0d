"""Cut, decorate and count the words of short sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from hypernet.data.overlap import Rule
from hypernet.data.synthetic.task_template import TaskTemplate, answer_patterns

WORDS = range(4, 13)
"""Numbers of words that a sentence may have."""

RULES: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "first_word": (lambda w: w[0], "the first word of the sentence"),
    "second_word": (lambda w: w[1], "the second word of the sentence"),
    "third_word": (lambda w: w[2], "the third word of the sentence"),
    "last_word": (lambda w: w[-1], "the last word of the sentence"),
    "first_two_words": (lambda w: " ".join(w[:2]), "the first two words of the sentence"),
    "last_two_words": (lambda w: " ".join(w[-2:]), "the last two words of the sentence"),
    "first_and_last_word": (lambda w: f"{w[0]} {w[-1]}", "the first and the last word of the sentence"),
    "drop_first_word": (lambda w: " ".join(w[1:]), "the sentence without its first word"),
    "drop_last_word": (lambda w: " ".join(w[:-1]), "the sentence without its last word"),
    "backward_words": (lambda w: " ".join(w[::-1]), "the words of the sentence in reverse order"),
    "uppercase_sentence": (lambda w: " ".join(w).upper(), "the sentence in capital letters"),
    "hyphenate_sentence": ("-".join, "the sentence with hyphens between its words"),
    "quote_sentence": (lambda w: f'"{" ".join(w)}"', "the sentence in quotation marks"),
    "question_sentence": (lambda w: f"{' '.join(w)}?", "the sentence with a question mark"),
    "words_of_sentence": (", ".join, "the words of the sentence with commas between them"),
    "initials_of_sentence": (lambda w: " ".join(x[0] for x in w), "the first letter of every word"),
    "number_of_words": (len, "the number of words in the sentence"),
    "copy_sentence": (" ".join, "the sentence as it is"),
}
"""Name -> (words of the sentence -> answer, noun phrase for it)."""


def sentences(material: Mapping[str, list[tuple[str, str]]]) -> Iterator[TaskTemplate]:
    """Every rule, over the short plain sentences among the inputs, without their full stops."""
    plain = sorted({found for pairs in material.values() for text, _ in pairs if (found := _sentence(text))})
    for name, (rule, noun_phrase) in RULES.items() if plain else ():
        yield TaskTemplate.from_rule(
            name,
            answer_patterns(noun_phrase, "Read the text and", "The input is a sentence."),
            lambda rng: rng.choice(plain),
            _of_sentence(rule),
        )


def _of_sentence(rule: Callable[[list[str]], object]) -> Rule:
    """A rule about words, as a rule about sentences."""

    def answer(text: str) -> str | None:
        sentence = _sentence(text)
        return None if sentence is None else str(rule(sentence.split()))

    return answer


def _sentence(text: str) -> str | None:
    """The sentence without its full stop, if the text is one plain sentence of a few words."""
    found = re.fullmatch(r"([A-Z][a-z']*(?: [A-Za-z']+)+)\.?", text)
    return found[1] if found and len(found[1].split()) in WORDS else None
