"""What a relation is: named pairs of a question and its answer, and how they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from hypernet.data.overlap import Pairs
from hypernet.data.synthetic.task_template import TaskTemplate, answer_patterns


@dataclass(frozen=True, slots=True)
class Relation:
    """Pairs that stand in one relation to each other, each the other's question or answer."""

    name: str
    said: str
    """The answer as a noun phrase: "the plural of the noun"."""
    of: str
    """What the question is, with its article: "a noun"."""
    pairs: Pairs

    def template(self) -> TaskTemplate:
        """The relation as a task to derive."""
        patterns = (
            *answer_patterns(self.said, f"Given {self.of},", f"The input is {self.of}."),
            f"Turn {self.of} into {self.said}.{{end}}",
            f"From {self.of} to {self.said}.{{end}}",
            f"What is {self.said}?{{end}}",
        )
        return TaskTemplate.from_pairs(self.name, patterns, self.pairs)


def inverted(pairs: Pairs) -> Pairs:
    """Answers with their questions, where an answer has a single one."""
    back: dict[str, list[str]] = {}
    for question, answer in pairs:
        back.setdefault(answer, []).append(question)
    return [(answer, questions[0]) for answer, questions in back.items() if len(questions) == 1]
