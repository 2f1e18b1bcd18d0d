"""Conditions: how a question is prompted and which adapter answers it.

    copy        no model: the answer is the question itself. No overlap metric may reward this.
    base        the base model, with the question alone
    prompted    the base model, with the description in the prompt
    icl         the base model, with three solved examples before the question
    matched     an adapter generated from the task's held-out descriptions
    training    ... from its other descriptions, which training has seen if it has seen the task
    mismatched  ... from the held-out descriptions of several other tasks, one of each
    random      ... from random letters
    empty       ... from the empty description

The last three are controls. A hypernetwork that scores as well under them has learnt one multi-task
LoRA and does not read the description. Trained LoRAs to compare with are in `baselines.py`,
conditions with both an adapter and a fuller prompt in `prompt_forms.py`.
"""

from __future__ import annotations

import random
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hypernet.evaluation.eval_task import EvalTask, Sample
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.lora import LoraWeights

NO_EXAMPLES = "no instance is left for the few-shot examples"


@dataclass(frozen=True)
class PromptVariant:
    """One way to ask all samples of a task.

    Attributes:
        adapters: none, one for all samples, or one per sample.
        instruction: text before each question, in the same turn.
        turns: solved examples before the question, as (user, assistant).
    """

    adapters: Sequence[LoraWeights] = ()
    instruction: str = ""
    turns: Sequence[tuple[str, str]] = ()

    def user_message(self, sample: Sample) -> str:
        """The last user turn."""
        return f"{self.instruction}\n\n{sample.prompt}" if self.instruction else sample.prompt


class Condition(ABC):
    """A rule that gives the prompt variants of a task. Scores are averaged over the variants.

    Attributes:
        name: e.g. `matched`.
        system: the checkpoint or LoRA; empty for the base model alone.
    """

    def __init__(self, name: str, system: str = "") -> None:
        self.name, self.system = name, system

    @abstractmethod
    def identity(self, eval_task: EvalTask) -> Any:
        """Everything but base model and samples that decides the answers, as plain values.

        Must be cheap.
        """

    @abstractmethod
    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """The prompt variants. Adapters are generated or loaded here."""

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Why the condition cannot be evaluated on this task; empty if it can."""
        return ""

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """Context in which the base model is changed as the condition needs it."""
        return nullcontext()

    def fixed_answer(self, sample: Sample) -> str | None:
        """The answer of a condition that runs no model; None: the model answers."""
        return None

    @property
    def changes_model(self) -> bool:
        """True if `applied` changes the model, so that no other condition can share a batch."""
        return False


class CopyInput(Condition):
    """`copy`: the answer is the question itself.

    A score that is not above this one means nothing.
    """

    def __init__(self) -> None:
        super().__init__("copy")

    def identity(self, eval_task: EvalTask) -> Any:
        """The condition's name."""
        return self.name

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """None, because no model runs."""
        return []

    def fixed_answer(self, sample: Sample) -> str:
        """The question."""
        return sample.prompt

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Tasks that are graded by running a program or reading a calculation are skipped."""
        has_targets = all(sample.target is not None for sample in eval_task.samples)
        return "" if has_targets else "answers have no single target"


class BaseModelOnly(Condition):
    """`base`: the base model with the question alone."""

    def __init__(self) -> None:
        super().__init__("base")

    def identity(self, eval_task: EvalTask) -> Any:
        """Nothing is added."""
        return []

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant()]


class DescriptionInPrompt(Condition):
    """`prompted`: the base model with the description before the question."""

    def __init__(self) -> None:
        super().__init__("prompted")

    def identity(self, eval_task: EvalTask) -> Any:
        """The descriptions."""
        return ["in the prompt", *eval_task.eval_descriptions]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One per description."""
        return [PromptVariant(instruction=description) for description in eval_task.eval_descriptions]


class InContextLearning(Condition):
    """`icl`: the base model with three solved examples as earlier turns of the chat."""

    def __init__(self) -> None:
        super().__init__("icl")

    def identity(self, eval_task: EvalTask) -> Any:
        """The examples."""
        return list(eval_task.examples)

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant(turns=eval_task.examples)]

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Tasks without few-shot examples are skipped."""
        return "" if eval_task.examples else NO_EXAMPLES


class GeneratedAdapters(Condition):
    """Adapters that a hypernetwork generates from descriptions.

    Args:
        name: of the condition.
        system: name of the checkpoint.
        generator: the hypernetwork with its encoder.
        descriptions: gives the descriptions of a task.
    """

    def __init__(
        self,
        name: str,
        system: str,
        generator: Generator,
        descriptions: Callable[[EvalTask], Sequence[str]],
    ) -> None:
        super().__init__(name, system)
        self.generator, self.descriptions = generator, descriptions

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Tasks without such descriptions are skipped."""
        return "" if self.descriptions(eval_task) else "the task has no such descriptions"

    def identity(self, eval_task: EvalTask) -> Any:
        """Fingerprints of hypernetwork and encoder, and the descriptions."""
        descriptions = list(self.descriptions(eval_task))
        return [self.generator.fingerprint, self.generator.encoder_fingerprint, descriptions]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One per description."""
        adapters = self.generator.generate(list(self.descriptions(eval_task)))
        return [PromptVariant(adapters=[adapter]) for adapter in adapters]


class Hyperdecoder(GeneratedAdapters):
    """`hyperdecoder`: each question is the description of its own adapter (Ivison & Peters
    2022).
    """

    def __init__(self, system: str, generator: Generator) -> None:
        super().__init__(
            "hyperdecoder", system, generator, lambda eval_task: [s.prompt for s in eval_task.samples]
        )

    def identity(self, eval_task: EvalTask) -> Any:
        """As of any hypernetwork, with a mark: an adapter answers one sample only."""
        return ["one each", *super().identity(eval_task)]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One, with an adapter per sample."""
        return [PromptVariant(adapters=self.generator.generate(list(self.descriptions(eval_task))))]


def t2l_conditions(
    generator: Generator, system: str, mismatched: Mapping[str, Sequence[str]], seed: int
) -> list[Condition]:
    """The checkpoint under test and its controls.

    Args:
        generator: the checkpoint.
        system: its name.
        mismatched: task -> descriptions for the condition `mismatched`; see
            `mismatched_descriptions`.
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


NUM_MISMATCHED = 8
"""Mismatched tasks per task. With one only, the difficulty of the mismatch would be chance."""


def mismatched_descriptions(
    descriptions: Mapping[str, Sequence[str]], description_only: Collection[str], seed: int
) -> dict[str, Sequence[str]]:
    """Task -> descriptions of other tasks, one of each. A task without others is missing.

    Args:
        descriptions: of all tasks of a file. The choice must not depend on `--only`.
        description_only: names of the tasks whose input alone does not say what to do.
        seed: of the choice.
    """
    named = [name for name, texts in descriptions.items() if texts]
    chosen = mismatched_tasks(named, description_only, seed)
    return {name: [descriptions[other][0] for other in others] for name, others in chosen.items()}


def mismatched_tasks(
    names: Sequence[str], description_only: Collection[str], seed: int
) -> dict[str, list[str]]:
    """Task -> up to `NUM_MISMATCHED` other tasks.

    They are its successors in a random cycle of all tasks. In file order, near-duplicates are
    adjacent, and the description of a near-duplicate is no mismatch. Description-only tasks have a
    cycle of their own: there, the description of e.g. an essay task would fail by the form of its
    answers, whether or not the hypernetwork reads.
    """
    own_group = [name for name in names if name in description_only]
    rest = [name for name in names if name not in description_only]
    groups = (own_group, rest) if min(len(own_group), len(rest)) > 1 else (names,)
    chosen = {}
    for group in groups:
        cycle = random.Random(seed).sample(group, len(group))
        for i, name in enumerate(cycle):
            if others := [*cycle[i + 1 :], *cycle[:i]][:NUM_MISMATCHED]:
                chosen[name] = others
    return chosen


def random_strings(like: Iterable[str], seed: str) -> list[str]:
    """Random letters and spaces, as long as the given descriptions."""
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_lowercase + "  ", k=len(text))) for text in like]
