"""Conditions: what stands before a question, and what is added to the weights.

    copy        no model at all: the question is its own answer, which no metric of overlap may reward
    base        nothing
    prompted    the description stands in the prompt
    icl         three solved examples stand before the question
    matched     an adapter from the task's held-out descriptions
    training    ... from its descriptions that are not held out, which training has seen if it saw the
                task; those above, of a task without others
    mismatched  ... from the held-out descriptions of several other tasks, one of each
    random      ... from random letters
    empty       ... from the empty description

A hypernetwork that does as well under the last three has learnt one multi-task
LoRA, not to read. Other adapters to compare with are in `baselines.py`, adapters under fuller prompts in
`prompt_forms.py`.
"""

from __future__ import annotations

import random
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hypernet.evaluation.eval_task import TOLD_ONLY, Item, Sheet
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.lora import LoraWeights
from hypernet.prompts import with_description


@dataclass(frozen=True)
class Way:
    """One way to ask all questions of a sheet.

    Attributes:
        adapters: none, one for all questions, or one per question.
        head: stands before each question, in the same turn.
        turns: stand before it, as (user, assistant).
    """

    adapters: Sequence[LoraWeights] = ()
    head: str = ""
    turns: Sequence[tuple[str, str]] = ()

    def question(self, item: Item) -> str:
        """What the user says last."""
        return with_description(self.head, item.prompt)


class Condition(ABC):
    """A rule that says in which ways a sheet is asked; scores are averaged over them.

    Attributes:
        name: e.g. `matched`.
        system: which checkpoint or LoRA; empty for the base model alone.
    """

    def __init__(self, name: str, system: str = "") -> None:
        self.name, self.system = name, system

    @abstractmethod
    def identity(self, sheet: Sheet) -> Any:
        """What decides the answers, base model and questions aside, as plain values. Must be cheap."""

    @abstractmethod
    def ways(self, sheet: Sheet) -> list[Way]:
        """The ways; adapters are made here."""

    def lacks(self, sheet: Sheet) -> str:
        """Why this sheet cannot be asked so; empty if it can."""
        return ""

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """What else must happen to the model meanwhile."""
        return nullcontext()

    def says(self, item: Item) -> str | None:
        """The answer, of a condition that needs no model for it."""
        return None

    @property
    def changes_model(self) -> bool:
        """True if `applied` does something, so that no other condition can share the batch."""
        return False


class Copied(Condition):
    """The question is its own answer: what a score is worth that is not above this one."""

    def __init__(self) -> None:
        super().__init__("copy")

    def identity(self, sheet: Sheet) -> Any:
        """The name."""
        return self.name

    def ways(self, sheet: Sheet) -> list[Way]:
        """None is asked."""
        return []

    def says(self, item: Item) -> str:
        """The question."""
        return item.prompt

    def lacks(self, sheet: Sheet) -> str:
        """It is graded by running it."""
        return "" if all(item.gold is not None for item in sheet.items) else "its answers are programs"


class Bare(Condition):
    """The base model sees the question alone."""

    def __init__(self) -> None:
        super().__init__("base")

    def identity(self, sheet: Sheet) -> Any:
        """Nothing."""
        return []

    def ways(self, sheet: Sheet) -> list[Way]:
        """One."""
        return [Way()]


class Prompted(Condition):
    """The base model sees description and question."""

    def __init__(self) -> None:
        super().__init__("prompted")

    def identity(self, sheet: Sheet) -> Any:
        """The descriptions."""
        return ["in the prompt", *sheet.held_out]

    def ways(self, sheet: Sheet) -> list[Way]:
        """One per description."""
        return [Way(head=wording) for wording in sheet.held_out]


class InContext(Condition):
    """The base model sees three solved examples as earlier turns of the chat, then the question."""

    def __init__(self) -> None:
        super().__init__("icl")

    def identity(self, sheet: Sheet) -> Any:
        """The examples."""
        return list(sheet.examples)

    def ways(self, sheet: Sheet) -> list[Way]:
        """One."""
        return [Way(turns=sheet.examples)]

    def lacks(self, sheet: Sheet) -> str:
        """Every instance is asked."""
        return "" if sheet.examples else "no instance is left to be shown as an example"


class Written(Condition):
    """Adapters that a hypernetwork writes.

    Args:
        name: of the condition.
        system: the checkpoint's name.
        generator: the hypernetwork with its encoder.
        wordings: what it reads for a sheet.
    """

    def __init__(
        self, name: str, system: str, generator: Generator, wordings: Callable[[Sheet], Sequence[str]]
    ) -> None:
        super().__init__(name, system)
        self.generator, self.wordings = generator, wordings

    def lacks(self, sheet: Sheet) -> str:
        """There is nothing to read."""
        return "" if self.wordings(sheet) else "there are no such descriptions of it"

    def identity(self, sheet: Sheet) -> Any:
        """Hypernetwork, encoder and descriptions."""
        return [self.generator.fingerprint, self.generator.encoder_fingerprint, list(self.wordings(sheet))]

    def ways(self, sheet: Sheet) -> list[Way]:
        """One per description."""
        return [Way(adapters=[a]) for a in self.generator.generate(list(self.wordings(sheet)))]


class Hyperdecoder(Written):
    """Every question is its own description (Ivison & Peters 2022)."""

    def __init__(self, system: str, generator: Generator) -> None:
        super().__init__("hyperdecoder", system, generator, lambda sheet: [i.prompt for i in sheet.items])

    def identity(self, sheet: Sheet) -> Any:
        """As any hypernetwork's, but an adapter answers one question only."""
        return ["one each", *super().identity(sheet)]

    def ways(self, sheet: Sheet) -> list[Way]:
        """One, with an adapter per question."""
        return [Way(adapters=self.generator.generate(list(self.wordings(sheet))))]


def t2l_conditions(
    generator: Generator, system: str, strangers: Mapping[str, Sequence[str]], seed: int
) -> list[Condition]:
    """The checkpoint under test and its controls.

    Args:
        generator: the checkpoint.
        system: its name.
        strangers: whose descriptions a task gets under `mismatched`; see `stranger_wordings`.
        seed: of the random strings.
    """
    rules: dict[str, Callable[[Sheet], Sequence[str]]] = {
        "matched": lambda sheet: sheet.held_out,
        "training": lambda sheet: sheet.training,
        "mismatched": lambda sheet: strangers.get(sheet.task, ()),
        "random": lambda sheet: random_strings(sheet.held_out, f"{seed}:{sheet.task}"),
        "empty": lambda _: [""],
    }
    return [Written(name, system, generator, rule) for name, rule in rules.items()]


STRANGERS = 8
"""How many other tasks a task is mismatched with: with a single one, luck would decide how hard that is."""


def stranger_wordings(wordings: Mapping[str, Sequence[str]], seed: int) -> dict[str, Sequence[str]]:
    """Task -> other tasks' descriptions, one of each. A task that is alone has no other, and is left out.

    Args:
        wordings: of all tasks of a file: who is whose stranger must not depend on which
            of them are evaluated today.
        seed: of the pairing.
    """
    others = strangers([name for name, said in wordings.items() if said], seed)
    return {name: [wordings[other][0] for other in its] for name, its in others.items()}


def strangers(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Task -> the tasks that are its mismatches, `STRANGERS` of them if there are so many.

    Those that follow it in one random cycle: file order would pair near-twins, and a twin's
    description is no mismatch. Tasks that only a description can tell have a cycle of their own:
    the description of an essay question would fail there by the form of its answers, without
    any reading.
    """
    told = [name for name in names if name.startswith(TOLD_ONLY)]
    rest = [name for name in names if name not in told]
    kinds = (told, rest) if min(len(told), len(rest)) > 1 else (names,)
    found = {}
    for kind in kinds:
        cycle = random.Random(seed).sample(kind, len(kind))
        for i, name in enumerate(cycle):
            if others := [*cycle[i + 1 :], *cycle[:i]][:STRANGERS]:
                found[name] = others
    return found


def random_strings(like: Iterable[str], seed: str) -> list[str]:
    """Random letters and spaces, as long as the given descriptions."""
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_lowercase + "  ", k=len(text))) for text in like]
