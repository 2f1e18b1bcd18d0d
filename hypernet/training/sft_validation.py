"""Validation of a hypernetwork: tasks that it does not train on,
with right and with wrong descriptions.
"""

from __future__ import annotations

from hypernet.frozen import FrozenBase
from hypernet.packing import pack
from hypernet.training.adapter_source import AdapterSource
from hypernet.training.config import SftConfig
from hypernet.training.losses import example_nll
from hypernet.training.training_tasks import TrainingTask
from hypernet.training.validation import mean_by_form, prompt_forms


class SftValidation:
    """Measures a hypernetwork in training on the validation tasks.

    Args:
        config: the run.
        base: the frozen base model.
        adapters: texts -> adapters, by the hypernetwork in training.
        tasks: the validation tasks. Each is also answered under the adapter of the next one.
    """

    def __init__(
        self, config: SftConfig, base: FrozenBase, adapters: AdapterSource, tasks: list[TrainingTask]
    ) -> None:
        self.config, self.base, self.adapters, self.tasks = config, base, adapters, tasks

    def __call__(self) -> dict[str, float]:
        """Mean NLL over the validation tasks, with their own descriptions and with one another's.

        The prompts are bare. For the other forms of prompt that the run trains with, only own
        descriptions are measured.
        """
        own, other = [], []
        by_form: list[tuple[str, float]] = []
        for i, task in enumerate(self.tasks):
            mismatched = self.tasks[(i + 1) % len(self.tasks)]
            mine, theirs = self._task_nll(task, mismatched)
            own.append(mine)
            other.append(theirs)
            if self.config.reads == "description":
                by_form += self._nll_by_form(task)
        return {
            "validation_nll": sum(own) / len(own),
            "validation_nll_mismatched": sum(other) / len(other),
        } | mean_by_form(by_form)

    def _task_nll(self, task: TrainingTask, mismatched: TrainingTask) -> tuple[float, float]:
        """NLL of a task's examples under its own adapter, and under the adapter of another task."""
        examples = task.examples[: self.config.validation_examples]
        if self.config.reads == "input":
            rows = [[example] for example in examples]
            others = mismatched.examples[: len(examples)]
            mine = [example.text for example in examples]
            theirs = [others[k % len(others)].text for k in range(len(examples))]
        else:
            rows, mine, theirs = [examples], task.held_out[:1], mismatched.held_out[:1]
        packed = pack(rows * 2).to(self.base.device)
        nll = example_nll(self.base.logits(packed, self.adapters(mine + theirs)), packed)
        own, other = nll.chunk(2)  # [examples] each
        return own.mean().item(), other.mean().item()

    def _nll_by_form(self, task: TrainingTask) -> list[tuple[str, float]]:
        """(form of prompt, NLL under the adapter of the task's own description)."""
        description = task.held_out[0]
        scores = []
        for form, row in prompt_forms(task, description, self.config, self.base.chat).items():
            packed = pack([row]).to(self.base.device)
            nll = example_nll(self.base.logits(packed, self.adapters([description])), packed)
            scores.append((form, nll.mean().item()))
        return scores
