"""Conditions that combine an adapter with a fuller prompt.

    matched_prompted    the task's generated adapters, each with its description in the prompt
    matched_icl         the same adapters, with three solved examples before the question
    multitask_prompted  one multi-task LoRA, with the description in the prompt
    multitask_icl       the same LoRA, with three solved examples before the question

Each pairs with the condition that it extends, and with `prompted` or `icl`, which have no adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from hypernet.evaluation.conditions import NO_EXAMPLES, Condition, GeneratedAdapters, PromptVariant
from hypernet.evaluation.eval_task import EvalTask
from hypernet.frozen import FrozenBase

COMBINED = ("matched", "multitask")
"""Conditions that are combined with fuller prompts."""


class _Combined(Condition):
    """The adapters of another condition under a fuller prompt.

    Args:
        adapted: the condition that gives the adapters.
        suffix: added to its name.
    """

    def __init__(self, adapted: Condition, suffix: str) -> None:
        super().__init__(f"{adapted.name}_{suffix}", adapted.system)
        self.adapted = adapted

    def skip_reason(self, eval_task: EvalTask) -> str:
        """The reason of the condition that gives the adapters."""
        return self.adapted.skip_reason(eval_task)

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """The context of the condition that gives the adapters."""
        return self.adapted.applied(base)

    @property
    def changes_model(self) -> bool:
        """True if the condition that gives the adapters changes the model."""
        return self.adapted.changes_model


class WithDescription(_Combined):
    """Adapters with the description in the prompt.

    A generated adapter has its own description there.
    """

    def __init__(self, adapted: Condition) -> None:
        super().__init__(adapted, "prompted")

    def identity(self, eval_task: EvalTask) -> Any:
        """The adapters and the descriptions."""
        return ["in the prompt", *eval_task.eval_descriptions, self.adapted.identity(eval_task)]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One per description."""
        variants = self.adapted.variants(eval_task)
        if isinstance(self.adapted, GeneratedAdapters):
            pairs = zip(self.adapted.descriptions(eval_task), variants, strict=True)
            return [replace(variant, instruction=description) for description, variant in pairs]
        return [
            replace(variant, instruction=description)
            for description in eval_task.eval_descriptions
            for variant in variants
        ]


class WithExamples(_Combined):
    """Adapters with solved examples as earlier turns."""

    def __init__(self, adapted: Condition) -> None:
        super().__init__(adapted, "icl")

    def identity(self, eval_task: EvalTask) -> Any:
        """The adapters and the examples."""
        return ["behind examples", *eval_task.examples, self.adapted.identity(eval_task)]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """As many as the adapters have."""
        return [replace(variant, turns=eval_task.examples) for variant in self.adapted.variants(eval_task)]

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Tasks without few-shot examples or without the adapters are skipped."""
        return super().skip_reason(eval_task) or ("" if eval_task.examples else NO_EXAMPLES)


def combined(conditions: Iterable[Condition]) -> list[Condition]:
    """Those of the conditions that are named in `COMBINED`, under each fuller prompt."""
    adapted = [condition for condition in conditions if condition.name in COMBINED]
    return [*(WithDescription(c) for c in adapted), *(WithExamples(c) for c in adapted)]
