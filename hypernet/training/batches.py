"""Batches for a hypernetwork or for one LoRA: which tasks, which examples, which prompts.

A batch depends on the seed and its number only, so both kinds of run see the same batches. The
additions of `MultitaskConfig` to plain rows have a random stream of their own, so a run without
them is unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypernet.packing import ChatFormat, Example, fit_row
from hypernet.prompts import with_description
from hypernet.training.config import MultitaskConfig, PromptForm
from hypernet.training.description_noise import add_noise
from hypernet.training.groups import Groups, aligned
from hypernet.training.training_tasks import TrainingTask, draw_weights


@dataclass(frozen=True, slots=True)
class Batch:
    """N rows: each has one task, one description and some examples."""

    tasks: list[TrainingTask]
    descriptions: list[str]
    rows: list[list[Example]]


class Batches:
    """Draws the batches of a run.

    Args:
        tasks: the training tasks.
        config: the composition of a batch.
        chat: the base model's chat format.
    """

    def __init__(self, tasks: list[TrainingTask], config: MultitaskConfig, chat: ChatFormat) -> None:
        self.tasks, self.config, self.chat = tasks, config, chat
        self.weights = draw_weights(
            tasks, config.short_task_preference, config.derived_share, config.group_balance
        )
        self._groups = Groups(tasks, self.weights) if config.same_group else None

    def draw(self, number: int) -> Batch:
        """The batch of a step."""
        config = self.config
        rng = random.Random(f"{config.seed}:{number}")
        mix = random.Random(f"{config.seed}:{number}:mix")
        tasks = rng.choices(self.tasks, self.weights, k=config.rows)
        grouped = self._gather(tasks, mix)
        sampled = [rng.sample(t.examples, min(config.row_examples, len(t.examples))) for t in tasks]
        for i in grouped[1:]:
            sampled[i] = aligned(tasks[i], sampled[grouped[0]], sampled[i])
        descriptions = [
            add_noise(text, mix) if mix.random() < config.description_noise else text
            for text in (rng.choice(t.paraphrases) for t in tasks)
        ]
        forms = mix.choices([*config.prompt_shares], [*config.prompt_shares.values()], k=config.rows)
        rows = [
            self._row(form, task, description, examples, mix)
            for form, task, description, examples in zip(forms, tasks, descriptions, sampled, strict=True)
        ]
        return Batch(tasks, descriptions, rows)

    def _gather(self, tasks: list[TrainingTask], mix: random.Random) -> list[int]:
        """Put tasks of one group into some rows of the batch; their numbers,
        that of the first task first.
        """
        wanted = round(self.config.same_group * len(tasks))
        if self._groups is None or wanted < 2:
            return []
        for leader, task in enumerate(tasks):
            if siblings := self._groups.siblings(task, wanted - 1, mix):
                places = [i for i in range(len(tasks)) if i != leader][-len(siblings) :]
                for i, sibling in zip(places, siblings, strict=True):
                    tasks[i] = sibling
                return [leader, *places]
        return []

    def _row(
        self,
        form: PromptForm,
        task: TrainingTask,
        description: str,
        sampled: list[Example],
        mix: random.Random,
    ) -> list[Example]:
        """A row in one form of prompt. It is bare if the form leaves no room for a question."""
        budget = self.config.row_tokens
        row: list[Example] = []
        if form == "description":
            row = described(sampled, description, self.chat)
        elif form == "examples":
            row = self._few_shot(task, sampled, mix)
        fitting = [e for e in row if len(e.prompt) + len(e.response) <= budget]
        return fit_row(fitting or sampled, budget)

    def _few_shot(self, task: TrainingTask, sampled: list[Example], mix: random.Random) -> list[Example]:
        """The sampled questions after solved ones. Long solved examples are fewer."""
        wanted = mix.randint(1, self.config.max_shots)
        others = [e for e in task.examples if e.text != sampled[0].text]  # so that one question is left
        shown = {e.text: e for e in mix.sample(others, min(wanted, len(others)))}
        questions = [e for e in sampled if e.text not in shown]
        shots = list(shown.values())
        while shots:
            row = few_shot(questions, shots, self.chat)
            if len(row[0].prompt) + len(row[0].response) <= self.config.row_tokens:
                earlier = self.chat.earlier(row[0].prompt, [(s.text, s.answer) for s in shots])
                return [replace(e, earlier=earlier) for e in row]
            shots.pop()
        return []


def described(examples: Sequence[Example], description: str, chat: ChatFormat) -> list[Example]:
    """The examples with a description in their prompts."""
    return [replace(e, prompt=chat.prompt(with_description(description, e.text))) for e in examples]


def few_shot(questions: Sequence[Example], shots: Sequence[Example], chat: ChatFormat) -> list[Example]:
    """The questions, with solved examples as earlier turns of the chat."""
    before = [(shot.text, shot.answer) for shot in shots]
    return [replace(e, prompt=chat.prompt(e.text, before)) for e in questions]
