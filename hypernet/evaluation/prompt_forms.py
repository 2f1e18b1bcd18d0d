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

from hypernet.evaluation.conditions import Condition, Way, Written
from hypernet.evaluation.eval_task import Sheet
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

    def lacks(self, sheet: Sheet) -> str:
        """What the adapters lack."""
        return self.adapted.lacks(sheet)

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

    def identity(self, sheet: Sheet) -> Any:
        """The adapters and the descriptions."""
        return ["in the prompt", *sheet.held_out, self.adapted.identity(sheet)]

    def ways(self, sheet: Sheet) -> list[Way]:
        """One per description."""
        ways = self.adapted.ways(sheet)
        if isinstance(self.adapted, Written):
            told = zip(self.adapted.wordings(sheet), ways, strict=True)
            return [replace(way, head=description) for description, way in told]
        return [replace(way, head=description) for description in sheet.held_out for way in ways]


class WithExamples(_Combined):
    """Adapters, and solved examples as earlier turns."""

    def __init__(self, adapted: Condition) -> None:
        super().__init__(adapted, "icl")

    def identity(self, sheet: Sheet) -> Any:
        """The adapters and the examples."""
        return ["behind examples", *sheet.examples, self.adapted.identity(sheet)]

    def ways(self, sheet: Sheet) -> list[Way]:
        """As many as the adapters have."""
        return [replace(way, turns=sheet.examples) for way in self.adapted.ways(sheet)]

    def lacks(self, sheet: Sheet) -> str:
        """Examples, or what the adapters lack."""
        return super().lacks(sheet) or (
            "" if sheet.examples else "no instance is left to be shown as an example"
        )


def combined(conditions: Iterable[Condition]) -> list[Condition]:
    """The conditions of `COMBINED` among those given, under each fuller prompt."""
    found = [c for c in conditions if c.name in COMBINED]
    return [*(WithDescription(c) for c in found), *(WithExamples(c) for c in found)]
