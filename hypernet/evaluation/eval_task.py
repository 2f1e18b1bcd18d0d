"""What of a task is asked, and how an answer is graded: the same under every condition."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from typing import Literal

from hypernet.data.tasks import Instance, Task
from hypernet.evaluation.metrics import exact_match, exact_match_impossible, normalise, rouge_l

MAX_PROMPT_CHARACTERS = 2_500
"""Longer inputs are passed over: one costs as much as a hundred short ones."""
SHOTS = 3
MAX_SHOT_CHARACTERS = 1_000
"""Longer instances are not used as examples while there are shorter ones."""
CASE_SENSITIVE_SHARE = 0.1
"""Where so many answers are the input in another case, case is what the task asks for."""
DESCRIPTION_ONLY = ("fv_", "ii_")
"""Names of tasks whose input alone does not say what to do begin so."""

Instances = Literal["all", "held-out"]


@dataclass(frozen=True)
class Sample:
    """One question.

    Attributes:
        prompt: what the user says.
        target: the answer whose likelihood is measured; None where there is no such thing.
        grade: an answer's score, 0..1.
        key: everything that `grade` depends on.
        can_stop: True for the beginning of an answer whose score no further word can change.
    """

    prompt: str
    target: str | None
    grade: Callable[[str], float]
    key: str
    can_stop: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True)
class EvalTask:
    """The questions of one task.

    Attributes:
        task: its name.
        metric: what the score is called.
        samples: the questions.
        examples: solved ones (question, answer) to show to a model; never among the samples.
        eval_descriptions: descriptions to evaluate with.
        training_descriptions: descriptions that training may have seen.
        max_tokens: of an answer; None is a little more than the longest target one.
        answer_prefix: how every answer begins.
    """

    task: str
    metric: str
    samples: Sequence[Sample]
    examples: Sequence[tuple[str, str]]
    eval_descriptions: Sequence[str]
    training_descriptions: Sequence[str]
    max_tokens: int | None = None
    answer_prefix: str = ""

    @cached_property
    def digest(self) -> str:
        """Identity of what is asked and how it is graded. The rest is the conditions' matter."""
        asked = [self.task, self.metric, self.max_tokens, self.answer_prefix]
        return sha256(
            repr([*asked, *((i.prompt, i.target, i.key) for i in self.samples)]).encode()
        ).hexdigest()[:16]


def build_eval_task(
    task: Task,
    n: int,
    seed: int,
    instances: Instances = "all",
    known: Collection[tuple[str, str]] = (),
) -> EvalTask:
    """Draw up to n questions of a task, and examples that are not among them.

    Files are often sorted, so instances are drawn in a random order that depends on
    the seed and the task's name alone; more questions begin with the same ones.

    Args:
        task: the task.
        n: how many questions.
        seed: of the order.
        instances: `held-out` asks only what training on this task leaves out.
        known: pairs that training has seen in other tasks, see `data.training_pairs`; they are not asked.
            Nothing may be left.
    """
    rng = random.Random(f"{seed}:{task.task}")
    seen, asked = ([], list(task.instances)) if instances == "all" else task.split_instances()
    asked = [i for i in rng.sample(asked, len(asked)) if i.pair not in known]
    short = [i for i in asked if len(i.input) <= MAX_PROMPT_CHARACTERS] or asked[:1]
    # With few instances some must be left over to be shown.
    chosen = short[: min(n, max(1, len(short) - SHOTS))] if instances == "all" else short[:n]
    spare = [i for i in asked if i not in chosen] if instances == "all" else rng.sample(seen, len(seen))
    case_sensitive = is_case_sensitive(task.instances)
    return EvalTask(
        task=task.task,
        metric=task.metric,
        samples=[_sample(i, task.metric, case_sensitive) for i in chosen],
        examples=examples(spare, {i.input for i in chosen}),
        eval_descriptions=task.held_out_paraphrases,
        training_descriptions=task.paraphrases[:3],
    )


def examples(spare: Sequence[Instance], asked: set[str]) -> list[tuple[str, str]]:
    """Up to three solved questions, none of which is asked in other places of the file; short ones first."""
    fresh = list({i.input: (i.input, i.output[0]) for i in spare if i.input not in asked}.values())
    return sorted(fresh, key=lambda pair: sum(map(len, pair)) > MAX_SHOT_CHARACTERS)[:SHOTS]


def is_case_sensitive(instances: Sequence[Instance]) -> bool:
    """Whether right answers differ from their inputs in case alone: then case must be graded.

    So it is in a tenth of the instances at least; fewer are names that two languages share.
    """
    return sum(map(_recased, instances)) >= CASE_SENSITIVE_SHARE * len(instances)


def _recased(instance: Instance) -> bool:
    """True of `cat` -> `Cat`, and of a single letter of a single word: `cat` -> `T`."""
    given, wanted = (normalise(text, case_sensitive=True) for text in (instance.input, instance.output[0]))
    letter = len(wanted) == 1 and " " not in given
    same = wanted.lower() in given.lower() if letter else wanted.lower() == given.lower()
    return same and wanted not in given


def _sample(instance: Instance, metric: str, case_sensitive: bool) -> Sample:
    references = instance.output
    sample = partial(Sample, instance.input, references[0], key=repr((references, case_sensitive)))
    if metric == "exact_match":
        return sample(
            grade=lambda answer: exact_match(answer, references, case_sensitive),
            can_stop=lambda beginning: exact_match_impossible(beginning, references, case_sensitive),
        )
    return sample(grade=lambda answer: rouge_l(answer, references))
