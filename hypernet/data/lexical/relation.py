"""A lexical relation: named pairs of a question and its answer, and how to ask for them."""

from __future__ import annotations

from dataclasses import dataclass

from hypernet.data.overlap import Pairs
from hypernet.data.synthetic.task_template import TaskTemplate, answer_patterns


@dataclass(frozen=True, slots=True)
class Relation:
    """Pairs of texts in one relation, such as singular and plural."""

    name: str
    noun_phrase: str
    """The answer as a noun phrase: "the plural of the noun"."""
    of: str
    """The kind of question, with its article: "a noun"."""
    pairs: Pairs

    def template(self) -> TaskTemplate:
        """The relation as a template of a task."""
        patterns = (
            *answer_patterns(self.noun_phrase, f"Given {self.of},", f"The input is {self.of}."),
            f"Turn {self.of} into {self.noun_phrase}.{{end}}",
            f"From {self.of} to {self.noun_phrase}.{{end}}",
            f"What is {self.noun_phrase}?{{end}}",
        )
        return TaskTemplate.from_pairs(self.name, patterns, self.pairs)


def inverted(pairs: Pairs) -> Pairs:
    """(answer, question) of every answer that has a single question."""
    back: dict[str, list[str]] = {}
    for question, answer in pairs:
        back.setdefault(answer, []).append(question)
    return [(answer, questions[0]) for answer, questions in back.items() if len(questions) == 1]
