"""A library: one plain LoRA per task, all of one shape, for one base model.

A folder of PEFT adapters with a manifest beside them:

    library.json                      base model, shapes, method, and one entry per task
    TASK/adapter_config.json ...      one PEFT folder per task

Reconstruction trains a hypernetwork on these LoRAs. The average LoRA, routing and the oracle
baseline use them, too. Adapters are read one by one, so a library may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from hypernet.checkpoint import ModelIdentity
from hypernet.config import LoraSpec, Record, first_problem
from hypernet.errors import T2lError
from hypernet.files import write_atomically
from hypernet.lora import LoraBatch, LoraWeights
from hypernet.peft_io import load_adapter_like, save_adapter

MANIFEST_FILE = "library.json"


class LibraryError(T2lError):
    """A library that cannot be used. The message names the folder and the fault."""


class Entry(Record):
    """Training record of one task's LoRA."""

    steps: int = Field(ge=0)
    loss: float
    """NLL per token, in nats, on the validation examples that selected the checkpoint."""
    held_out_loss: float
    """NLL per token, in nats, on the task's held-out instances."""


class Manifest(Record):
    """`library.json`."""

    schema_version: Literal[1] = 1
    base_model: ModelIdentity
    lora: LoraSpec
    method: str
    """How the adapters were trained, for readers."""
    tasks: dict[str, Entry]


class Statistics(NamedTuple):
    """Mean and sample standard deviation (n - 1) of every weight over a library."""

    mean: LoraWeights
    deviation: LoraWeights


class Library:
    """The LoRAs of a folder, or a subset of them.

    Attributes:
        names: task names, in the order of addition.
    """

    def __init__(self, folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
        self.folder, self._manifest, self.names = folder, manifest, list(names)

    @classmethod
    def open(cls, folder: Path, base: str | None = None) -> Library:
        """Open a library.

        Args:
            folder: holds `library.json`.
            base: fingerprint of the required base model; None: any.

        Raises:
            LibraryError: the folder holds no library or an empty one, its manifest cannot be read,
                or it is for another base model.
        """
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise LibraryError(f"{path} is missing: `t2l train oracles` makes a library")
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise LibraryError(f"{path}: {first_problem(error)}") from error
        if not manifest.tasks:
            raise LibraryError(f"{path} lists no task: `t2l train oracles` adds them")
        if base is not None and base != manifest.base_model.fingerprint:
            known = manifest.base_model
            raise LibraryError(
                f"{folder} is for {known.name} ({known.fingerprint}), not for a base model {base}"
            )
        return cls(folder, manifest, manifest.tasks)

    @classmethod
    def open_or_create(cls, folder: Path, base: ModelIdentity, spec: LoraSpec, method: str) -> Library:
        """The library in a folder, or an empty library that the first `add` writes there.

        Raises:
            LibraryError: the folder holds a library of another base model, shape or method.
        """
        wanted = Manifest(base_model=base, lora=spec, method=method, tasks={})
        if not (folder / MANIFEST_FILE).exists():
            return cls(folder, wanted, [])
        library = cls.open(folder)
        for field in ("base_model", "lora", "method"):
            found, needed = getattr(library._manifest, field), getattr(wanted, field)
            if found != needed:
                raise LibraryError(f"{folder}: {field} is {found}, this run has {needed}: name another folder")
        return library

    @property
    def spec(self) -> LoraSpec:
        """Shapes of all LoRAs in the library."""
        return self._manifest.lora

    @property
    def base_model(self) -> ModelIdentity:
        """The base model of the LoRAs."""
        return self._manifest.base_model

    def entry(self, name: str) -> Entry:
        """Training record of a task's LoRA."""
        return self._manifest.tasks[name]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> LoraWeights:
        """The LoRA of a task, in fp32.

        Raises:
            KeyError: the library has no such task.
            AdapterFileError: the task's folder is missing or malformed, or has other shapes.
        """
        if name not in self._manifest.tasks:
            raise KeyError(f"{self.folder} has no LoRA for {name}")
        return load_adapter_like(self.folder / name, self.spec).to(torch.float32)

    def subset(self, names: Iterable[str]) -> Library:
        """The library with these tasks only.

        Raises:
            LibraryError: a task is not in the library, or `names` is empty.
        """
        chosen = list(names)
        unknown = [name for name in chosen if name not in self.names]
        if not chosen:
            raise LibraryError(f"{self.folder}: no task is selected")
        if unknown:
            raise LibraryError(f"{self.folder} has no LoRA for {', '.join(unknown)}")
        return Library(self.folder, self._manifest, chosen)

    def add(self, adapters: Mapping[str, tuple[LoraWeights, Entry]]) -> None:
        """Write several LoRAs. An interrupted call leaves all of them in the manifest, or none.

        Raises:
            LibraryError: a task name cannot be a folder name, or a LoRA has other shapes.
            InvalidLoraError: weights are not finite.
        """
        for name, (weights, _) in adapters.items():
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
                raise LibraryError(f"task {name!r} cannot name a folder: use letters, digits, '_', '-' and '.'")
            if weights.spec != self.spec:
                raise LibraryError(f"the LoRA of {name} is {weights.spec}, the library has {self.spec}")
        for name, (weights, _) in adapters.items():
            save_adapter(self.folder / name, weights, self.base_model.name)
        tasks = self._manifest.tasks | {name: entry for name, (_, entry) in adapters.items()}
        self._manifest = self._manifest.model_copy(update={"tasks": tasks})
        self.names = list(dict.fromkeys([*self.names, *adapters]))
        write_atomically(self.folder / MANIFEST_FILE, self._manifest.model_dump_json(indent=2) + "\n")

    def stack(self) -> LoraBatch:
        """All LoRAs as one batch: A [len, layers, r, in] and B [len, layers, out, r] per module."""
        return LoraBatch.stack([self[name] for name in self.names])

    def average(self) -> LoraWeights:
        """The element-wise mean of all A and of all B: the "average LoRA" of the T2L paper.

        The product of the means differs from the mean of the products. The paper uses the former.
        """
        return LoraWeights.unflatten(self.spec, self._mean().float())

    def statistics(self) -> Statistics:
        """Mean and sample standard deviation of every weight, for z-scores as the reference takes
        them.

        The deviation over a single LoRA is zero. Reads every LoRA twice and holds one at a time.
        """
        mean = self._mean()
        squares = torch.zeros_like(mean)
        for name in self.names:
            squares += (self[name].flatten().double() - mean).square()
        deviation = (squares / max(len(self) - 1, 1)).sqrt()
        return Statistics(
            LoraWeights.unflatten(self.spec, mean.float()), LoraWeights.unflatten(self.spec, deviation.float())
        )

    def _mean(self) -> Tensor:
        """[num_parameters], fp64."""
        total = torch.zeros(self.spec.num_parameters, dtype=torch.float64)
        for name in self.names:
            total += self[name].flatten()
        return total / len(self)
