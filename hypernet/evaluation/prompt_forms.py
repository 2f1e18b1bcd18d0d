"""Conditions that adapt the base model and tell it more in the prompt, too.

    matched_prompted    the task's own adapters, each with its description in the prompt
    matched_icl         the same adapters behind three solved examples
    multitask_prompted  one multi-task LoRA, with each description in the prompt
    multitask_icl       the same LoRA behind three solved examples

Each pairs with the condition that it adds to, and with `prompted` or `icl`, which lack the adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from hypernet.evaluation.conditions import Condition, GeneratedAdapters, PromptVariant
from hypernet.evaluation.eval_task import EvalTask
from hypernet.frozen import FrozenBase

COMBINED = ("matched", "multitask")
"""Conditions that are asked with more in the prompt, too."""


class _Combined(Condition):
    """Another condition's adapters under a fuller prompt.

    Args:
        adapted: gives the adapters.
        suffix: what the name of the condition ends in.
    """

    def __init__(self, adapted: Condition, suffix: str) -> None:
        super().__init__(f"{adapted.name}_{suffix}", adapted.system)
        self.adapted = adapted

    def skip_reason(self, eval_task: EvalTask) -> str:
        """What the adapters lack."""
        return self.adapted.skip_reason(eval_task)

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """What the adapters need."""
        return self.adapted.applied(base)

    @property
    def changes_model(self) -> bool:
        """As the adapters say."""
        return self.adapted.changes_model


class WithDescription(_Combined):
    """Adapters, and the description in the prompt: each adapter's own where it was generated from one."""

    def __init__(self, adapted: Condition) -> None:
        super().__init__(adapted, "prompted")

    def identity(self, eval_task: EvalTask) -> Any:
        """The adapters and the descriptions."""
        return ["in the prompt", *eval_task.eval_descriptions, self.adapted.identity(eval_task)]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One per description."""
        variants = self.adapted.variants(eval_task)
        if isinstance(self.adapted, GeneratedAdapters):
            told = zip(self.adapted.wordings(eval_task), variants, strict=True)
            return [replace(variant, head=description) for description, variant in told]
        return [
            replace(variant, head=description)
            for description in eval_task.eval_descriptions
            for variant in variants
        ]


class WithExamples(_Combined):
    """Adapters, and solved examples as earlier turns."""

    def __init__(self, adapted: Condition) -> None:
        super().__init__(adapted, "icl")

    def identity(self, eval_task: EvalTask) -> Any:
        """The adapters and the examples."""
        return ["behind examples", *eval_task.examples, self.adapted.identity(eval_task)]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """As many as the adapters have."""
        return [replace(variant, turns=eval_task.examples) for variant in self.adapted.variants(eval_task)]

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Examples, or what the adapters lack."""
        return super().skip_reason(eval_task) or (
            "" if eval_task.examples else "no instance is left to be shown as an example"
        )


def combined(conditions: Iterable[Condition]) -> list[Condition]:
    """The conditions of `COMBINED` among those given, under each fuller prompt."""
    found = [c for c in conditions if c.name in COMBINED]
    return [*(WithDescription(c) for c in found), *(WithExamples(c) for c in found)]
