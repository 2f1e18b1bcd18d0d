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

from hypernet.evaluation.eval_task import DESCRIPTION_ONLY, EvalTask, Sample
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.lora import LoraWeights
from hypernet.prompts import with_description


@dataclass(frozen=True)
class PromptVariant:
    """One variant to ask all questions of a eval_task.

    Attributes:
        adapters: none, one for all questions, or one per question.
        head: stands before each question, in the same turn.
        turns: stand before it, as (user, assistant).
    """

    adapters: Sequence[LoraWeights] = ()
    head: str = ""
    turns: Sequence[tuple[str, str]] = ()

    def question(self, sample: Sample) -> str:
        """What the user says last."""
        return with_description(self.head, sample.prompt)


class Condition(ABC):
    """A rule that says in which variants a eval_task is asked; scores are averaged over them.

    Attributes:
        name: e.g. `matched`.
        system: which checkpoint or LoRA; empty for the base model alone.
    """

    def __init__(self, name: str, system: str = "") -> None:
        self.name, self.system = name, system

    @abstractmethod
    def identity(self, eval_task: EvalTask) -> Any:
        """What decides the answers, base model and questions aside, as plain values. Must be cheap."""

    @abstractmethod
    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """The variants; adapters are made here."""

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Why this eval_task cannot be asked so; empty if it can."""
        return ""

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """What else must happen to the model meanwhile."""
        return nullcontext()

    def fixed_answer(self, sample: Sample) -> str | None:
        """The answer, of a condition that needs no model for it."""
        return None

    @property
    def changes_model(self) -> bool:
        """True if `applied` does something, so that no other condition can share the batch."""
        return False


class CopyInput(Condition):
    """The question is its own answer: what a score is worth that is not above this one."""

    def __init__(self) -> None:
        super().__init__("copy")

    def identity(self, eval_task: EvalTask) -> Any:
        """The name."""
        return self.name

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """None is asked."""
        return []

    def fixed_answer(self, sample: Sample) -> str:
        """The question."""
        return sample.prompt

    def skip_reason(self, eval_task: EvalTask) -> str:
        """It is graded by running it."""
        return (
            "" if all(sample.target is not None for sample in eval_task.samples) else "its answers are programs"
        )


class BaseModelOnly(Condition):
    """The base model sees the question alone."""

    def __init__(self) -> None:
        super().__init__("base")

    def identity(self, eval_task: EvalTask) -> Any:
        """Nothing."""
        return []

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant()]


class DescriptionInPrompt(Condition):
    """The base model sees description and question."""

    def __init__(self) -> None:
        super().__init__("prompted")

    def identity(self, eval_task: EvalTask) -> Any:
        """The descriptions."""
        return ["in the prompt", *eval_task.eval_descriptions]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One per description."""
        return [PromptVariant(head=wording) for wording in eval_task.eval_descriptions]


class InContextLearning(Condition):
    """The base model sees three solved examples as earlier turns of the chat, then the question."""

    def __init__(self) -> None:
        super().__init__("icl")

    def identity(self, eval_task: EvalTask) -> Any:
        """The examples."""
        return list(eval_task.examples)

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant(turns=eval_task.examples)]

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Every instance is asked."""
        return "" if eval_task.examples else "no instance is left to be shown as an example"


class GeneratedAdapters(Condition):
    """Adapters that a hypernetwork writes.

    Args:
        name: of the condition.
        system: the checkpoint's name.
        generator: the hypernetwork with its encoder.
        wordings: what it reads for a eval_task.
    """

    def __init__(
        self, name: str, system: str, generator: Generator, wordings: Callable[[EvalTask], Sequence[str]]
    ) -> None:
        super().__init__(name, system)
        self.generator, self.wordings = generator, wordings

    def skip_reason(self, eval_task: EvalTask) -> str:
        """There is nothing to read."""
        return "" if self.wordings(eval_task) else "there are no such descriptions of it"

    def identity(self, eval_task: EvalTask) -> Any:
        """Hypernetwork, encoder and descriptions."""
        return [self.generator.fingerprint, self.generator.encoder_fingerprint, list(self.wordings(eval_task))]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One per description."""
        return [PromptVariant(adapters=[a]) for a in self.generator.generate(list(self.wordings(eval_task)))]


class Hyperdecoder(GeneratedAdapters):
    """Every question is its own description (Ivison & Peters 2022)."""

    def __init__(self, system: str, generator: Generator) -> None:
        super().__init__(
            "hyperdecoder", system, generator, lambda eval_task: [i.prompt for i in eval_task.samples]
        )

    def identity(self, eval_task: EvalTask) -> Any:
        """As any hypernetwork's, but an adapter answers one question only."""
        return ["one each", *super().identity(eval_task)]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One, with an adapter per question."""
        return [PromptVariant(adapters=self.generator.generate(list(self.wordings(eval_task))))]


def t2l_conditions(
    generator: Generator, system: str, mismatched: Mapping[str, Sequence[str]], seed: int
) -> list[Condition]:
    """The checkpoint under test and its controls.

    Args:
        generator: the checkpoint.
        system: its name.
        mismatched: whose descriptions a task gets under `mismatched`; see `mismatched_descriptions`.
        seed: of the random strings.
    """
    rules: dict[str, Callable[[EvalTask], Sequence[str]]] = {
        "matched": lambda eval_task: eval_task.eval_descriptions,
        "training": lambda eval_task: eval_task.training_descriptions,
        "mismatched": lambda eval_task: mismatched.get(eval_task.task, ()),
        "random": lambda eval_task: random_strings(eval_task.eval_descriptions, f"{seed}:{eval_task.task}"),
        "empty": lambda _: [""],
    }
    return [GeneratedAdapters(name, system, generator, rule) for name, rule in rules.items()]


MISMATCHED_TASKS = 8
"""How many other tasks a task is mismatched with: with a single one, luck would decide how hard that is."""


def mismatched_descriptions(wordings: Mapping[str, Sequence[str]], seed: int) -> dict[str, Sequence[str]]:
    """Task -> other tasks' descriptions, one of each. A task that is alone has no other, and is left out.

    Args:
        wordings: of all tasks of a file: who is whose stranger must not depend on which
            of them are evaluated today.
        seed: of the pairing.
    """
    others = mismatched_tasks([name for name, said in wordings.items() if said], seed)
    return {name: [wordings[other][0] for other in its] for name, its in others.items()}


def mismatched_tasks(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Task -> the tasks that are its mismatches, `MISMATCHED_TASKS` of them if there are so many.

    Those that follow it in one random cycle: file order would pair near-twins, and a twin's
    description is no mismatch. Tasks that only a description can tell have a cycle of their own:
    the description of an essay question would fail there by the form of its answers, without
    any reading.
    """
    told = [name for name in names if name.startswith(DESCRIPTION_ONLY)]
    rest = [name for name in names if name not in told]
    kinds = (told, rest) if min(len(told), len(rest)) > 1 else (names,)
    found = {}
    for kind in kinds:
        cycle = random.Random(seed).sample(kind, len(kind))
        for i, name in enumerate(cycle):
            if others := [*cycle[i + 1 :], *cycle[:i]][:MISMATCHED_TASKS]:
                found[name] = others
    return found


def random_strings(like: Iterable[str], seed: str) -> list[str]:
    """Random letters and spaces, as long as the given descriptions."""
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_lowercase + "  ", k=len(text))) for text in like]
