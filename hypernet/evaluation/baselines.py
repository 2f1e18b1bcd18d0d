"""Conditions with trained LoRAs: one for all tasks, their average, each task's own, and routing among them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from hypernet.config import LoraSpec
from hypernet.evaluation.arrow import TOP_K, Arrow
from hypernet.evaluation.conditions import Condition, PromptVariant
from hypernet.evaluation.eval_task import EvalTask
from hypernet.frozen import FrozenBase
from hypernet.library import Library, LibraryError
from hypernet.peft_io import CONFIG_FILE, WEIGHTS_FILE, load_adapter_like


def digest(folders: Iterable[Path]) -> str:
    """Identity of PEFT folders: the bytes of their files."""
    found = sha256()
    for folder in folders:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            found.update((folder / name).read_bytes())
    return found.hexdigest()[:16]


class MultitaskLora(Condition):
    """One static LoRA under every question.

    Args:
        folder: a PEFT folder.
        spec: the shape it must have.
        name: what tables call it; None is the folder's name.

    Raises:
        AdapterFileError: the folder is malformed or of another shape.
    """

    def __init__(self, folder: Path, spec: LoraSpec, name: str | None = None) -> None:
        super().__init__("multitask", name or folder.name)
        self._adapter, self._digest = load_adapter_like(folder, spec), digest([folder])

    def identity(self, eval_task: EvalTask) -> Any:
        """The LoRA's bytes."""
        return self._digest

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant(adapters=[self._adapter])]


class OracleLora(Condition):
    """Each task under the LoRA that was trained on it: what a hypernetwork could reach.

    Args:
        folder: holds TASK/ PEFT folders; tasks without one are left out.
        spec: the shape they must have.
    """

    def __init__(self, folder: Path, spec: LoraSpec) -> None:
        super().__init__("oracle", folder.name)
        self._folder, self._spec = folder, spec

    def identity(self, eval_task: EvalTask) -> Any:
        """The LoRA's bytes."""
        return digest([self._folder / eval_task.task])

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant(adapters=[load_adapter_like(self._folder / eval_task.task, self._spec)])]

    def skip_reason(self, eval_task: EvalTask) -> str:
        """No LoRA was trained for it, or is not written yet."""
        whole = all((self._folder / eval_task.task / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE))
        return "" if whole else f"{self._folder} has no LoRA of it"


class _LibraryCondition(Condition):
    """What is made of a whole library.

    Args:
        name: of the condition.
        library: the LoRAs.
        spec: the shape they must have.

    Raises:
        LibraryError: they have another.
    """

    def __init__(self, name: str, library: Library, spec: LoraSpec) -> None:
        super().__init__(name, library.folder.name)
        if library.spec != spec:
            raise LibraryError(f"{library.folder} holds LoRAs of {library.spec}, the checkpoint writes {spec}")
        self._library = library

    @cached_property
    def _digest(self) -> str:
        return digest(self._library.folder / name for name in self._library.names)

    def identity(self, eval_task: EvalTask) -> Any:
        """All LoRAs' bytes, and what is done with them."""
        return [self.name, self._digest]


class AverageLora(_LibraryCondition):
    """The element-wise average of a library under every question."""

    def __init__(self, library: Library, spec: LoraSpec) -> None:
        super().__init__("average", library, spec)

    @cached_property
    def _way(self) -> PromptVariant:
        return PromptVariant(adapters=[self._library.average()])

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [self._way]


class ArrowRouting(_LibraryCondition):
    """Arrow routing among a library's LoRAs."""

    def __init__(self, library: Library, spec: LoraSpec) -> None:
        super().__init__("arrow", library, spec)

    def identity(self, eval_task: EvalTask) -> Any:
        """The library, and how many experts a token gets."""
        return [*super().identity(eval_task), TOP_K]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One, with nothing but the routing."""
        return [PromptVariant()]

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """Routes."""
        arrow = Arrow(self._library.spec, self._library.stack(), base.model.dtype, device=base.device)
        return arrow.applied(base.model)

    @property
    def changes_model(self) -> bool:
        """Yes: the route depends on each token, so there is no one adapter."""
        return True
