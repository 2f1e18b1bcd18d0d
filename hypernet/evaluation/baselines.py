"""Conditions with trained LoRAs: a multi-task LoRA, and the average,
routing and oracle of a library.
"""

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
    """Hash of the files in PEFT folders."""
    found = sha256()
    for folder in folders:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            found.update((folder / name).read_bytes())
    return found.hexdigest()[:16]


class MultitaskLora(Condition):
    """`multitask`: one static LoRA for every question.

    Args:
        folder: a PEFT folder.
        spec: the shape that it must have.
        name: shown in tables; None: the folder's name.

    Raises:
        AdapterFileError: the folder is malformed or of another shape.
    """

    def __init__(self, folder: Path, spec: LoraSpec, name: str | None = None) -> None:
        super().__init__("multitask", name or folder.name)
        self._adapter, self._digest = load_adapter_like(folder, spec), digest([folder])

    def identity(self, eval_task: EvalTask) -> Any:
        """Hash of the LoRA."""
        return self._digest

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant(adapters=[self._adapter])]


class OracleLora(Condition):
    """`oracle`: each task under the LoRA that was trained on it. A hypernetwork could reach as
    much.

    Args:
        folder: holds TASK/ PEFT folders. Tasks without one are skipped.
        spec: the shape that they must have.
    """

    def __init__(self, folder: Path, spec: LoraSpec) -> None:
        super().__init__("oracle", folder.name)
        self._folder, self._spec = folder, spec

    def identity(self, eval_task: EvalTask) -> Any:
        """Hash of the LoRA."""
        return digest([self._folder / eval_task.task])

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [PromptVariant(adapters=[load_adapter_like(self._folder / eval_task.task, self._spec)])]

    def skip_reason(self, eval_task: EvalTask) -> str:
        """Tasks whose LoRA is missing or not written in full are skipped."""
        complete = all((self._folder / eval_task.task / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE))
        return "" if complete else f"{self._folder} has no LoRA of the task"


class _LibraryCondition(Condition):
    """A condition that uses all LoRAs of a library.

    Args:
        name: of the condition.
        library: the LoRAs.
        spec: the shape that they must have.

    Raises:
        LibraryError: they have another shape.
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
        """The condition's name and a hash of all LoRAs."""
        return [self.name, self._digest]


class AverageLora(_LibraryCondition):
    """`average`: the element-wise mean of a library for every question."""

    def __init__(self, library: Library, spec: LoraSpec) -> None:
        super().__init__("average", library, spec)

    @cached_property
    def _variant(self) -> PromptVariant:
        return PromptVariant(adapters=[self._library.average()])

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One."""
        return [self._variant]


class ArrowRouting(_LibraryCondition):
    """`arrow`: each token is routed among the LoRAs of a library, see `arrow.py`."""

    def __init__(self, library: Library, spec: LoraSpec) -> None:
        super().__init__("arrow", library, spec)

    def identity(self, eval_task: EvalTask) -> Any:
        """The library, and the number of experts per token."""
        return [*super().identity(eval_task), TOP_K]

    def variants(self, eval_task: EvalTask) -> list[PromptVariant]:
        """One, without an adapter: the routing is in the model."""
        return [PromptVariant()]

    def applied(self, base: FrozenBase) -> AbstractContextManager[None]:
        """The model routes inside this context."""
        arrow = Arrow(self._library.spec, self._library.stack(), base.model.dtype, device=base.device)
        return arrow.applied(base.model)

    @property
    def changes_model(self) -> bool:
        """True: the route depends on each token, so no single adapter stands for it."""
        return True
