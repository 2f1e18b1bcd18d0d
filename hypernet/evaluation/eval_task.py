"""The samples of a task and how their answers are graded.

Both are the same under every condition.
"""

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
"""Longer inputs are skipped: one costs as much as a hundred short ones."""
NUM_SHOTS = 3
MAX_SHOT_CHARACTERS = 1_000
"""Longer instances serve as few-shot examples only where shorter ones are too few."""
CASE_SENSITIVE_SHARE = 0.1
"""Case is graded where at least this share of the targets is the input in another case."""

Instances = Literal["all", "held-out"]


@dataclass(frozen=True)
class Sample:
    """One question.

    Attributes:
        prompt: the user's message.
        target: the answer whose likelihood is measured. None: the sample has no single right
            answer.
        grade: answer -> score, 0..1.
        key: everything that `grade` depends on, as text.
        can_stop: beginning of an answer -> True if no further token can change the score.
    """

    prompt: str
    target: str | None
    grade: Callable[[str], float]
    key: str
    can_stop: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True)
class EvalTask:
    """The samples of one task.

    Attributes:
        task: name of the task.
        metric: name of the score.
        samples: the questions.
        examples: solved (question, answer) pairs for few-shot prompts; none of them is a sample.
        eval_descriptions: descriptions held out for evaluation.
        training_descriptions: descriptions that training may have seen.
        max_tokens: limit of an answer. None: a little more than the longest target.
        answer_prefix: the beginning that every answer is given.
        description_only: the input alone does not say what to do.
    """

    task: str
    metric: str
    samples: Sequence[Sample]
    examples: Sequence[tuple[str, str]]
    eval_descriptions: Sequence[str]
    training_descriptions: Sequence[str]
    max_tokens: int | None = None
    answer_prefix: str = ""
    description_only: bool = False

    @cached_property
    def digest(self) -> str:
        """Hash of the samples and their grading. Conditions add their own identity."""
        settings = [self.task, self.metric, self.max_tokens, self.answer_prefix]
        samples = [(sample.prompt, sample.target, sample.key) for sample in self.samples]
        return sha256(repr([*settings, *samples]).encode()).hexdigest()[:16]


def build_eval_task(
    task: Task,
    n: int,
    seed: int,
    instances: Instances = "all",
    trained_pairs: Collection[tuple[str, str]] = (),
) -> EvalTask:
    """Draw up to n samples of a task, and few-shot examples that are not among them.

    Files are often sorted, so instances are drawn in a random order. The order depends only on the
    seed and the task's name: a larger n starts with the samples of a smaller one.

    Args:
        task: the task.
        n: number of samples.
        seed: of the order.
        instances: `held-out` draws only instances that training on this task leaves out.
        trained_pairs: pairs that training has seen in other tasks, see `data.tasks.training_pairs`.
            They are not drawn, so the result may have no sample at all.
    """
    rng = random.Random(f"{seed}:{task.task}")
    training, pool = ([], list(task.instances)) if instances == "all" else task.split_instances()
    pool = [i for i in rng.sample(pool, len(pool)) if i.pair not in trained_pairs]
    short = [i for i in pool if len(i.input) <= MAX_PROMPT_CHARACTERS] or pool[:1]
    # A task with few instances must keep some for the few-shot examples.
    chosen = short[: min(n, max(1, len(short) - NUM_SHOTS))] if instances == "all" else short[:n]
    spare = [i for i in pool if i not in chosen] if instances == "all" else rng.sample(training, len(training))
    case_sensitive = is_case_sensitive(task.instances)
    return EvalTask(
        task=task.task,
        metric=task.metric,
        samples=[_sample(i, task.metric, case_sensitive) for i in chosen],
        examples=few_shot_examples(spare, {i.input for i in chosen}),
        eval_descriptions=task.held_out_paraphrases,
        training_descriptions=task.paraphrases[:3],
        description_only=task.description_only,
    )


def few_shot_examples(spare: Sequence[Instance], sampled: set[str]) -> list[tuple[str, str]]:
    """Up to three solved questions whose inputs are not sampled; short ones first."""
    unused = {i.input: (i.input, i.output[0]) for i in spare if i.input not in sampled}
    return sorted(unused.values(), key=lambda pair: sum(map(len, pair)) > MAX_SHOT_CHARACTERS)[:NUM_SHOTS]


def is_case_sensitive(instances: Sequence[Instance]) -> bool:
    """Whether the task is to change case: then the metric must grade case.

    True if at least a tenth of the outputs differ from their inputs in case alone. A smaller share
    is chance, e.g. names that two languages write alike.
    """
    return sum(map(_differs_in_case_only, instances)) >= CASE_SENSITIVE_SHARE * len(instances)


def _differs_in_case_only(instance: Instance) -> bool:
    """True of `cat` -> `Cat`, and of one letter of a single word: `cat` -> `T`."""
    given, wanted = (normalise(text, case_sensitive=True) for text in (instance.input, instance.output[0]))
    is_letter = len(wanted) == 1 and " " not in given
    same = wanted.lower() in given.lower() if is_letter else wanted.lower() == given.lower()
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
