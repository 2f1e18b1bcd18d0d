"""A library: one plain LoRA per task, all of one shape, for one base model.

A folder of PEFT adapters with a manifest beside them:

    library.json                      base model, shape, how they were made, a line per task
    TASK/adapter_config.json ...      one PEFT folder per task

Reconstruction learns to write these LoRAs; the average LoRA, routing and the
oracle baseline read them. Adapters are read when asked for: a library may be
larger than memory.
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
    """A library that cannot be used; the message names the folder and what is wrong with it."""


class Entry(Record):
    """How one task's LoRA came about."""

    steps: int = Field(ge=0)
    loss: float
    """Token NLL, in nats, on the examples that chose it."""
    held_out_loss: float
    """The same on the task's held-out instances."""


class Manifest(Record):
    """`library.json`."""

    schema_version: Literal[1] = 1
    base_model: ModelIdentity
    lora: LoraSpec
    method: str
    """What made the adapters, for people to read."""
    tasks: dict[str, Entry]


class Statistics(NamedTuple):
    """Mean and sample standard deviation (n - 1) of every weight over a library."""

    mean: LoraWeights
    deviation: LoraWeights


class Library:
    """The LoRAs of a folder, or some of them.

    Attributes:
        names: the tasks, in the order in which they were added.
    """

    def __init__(self, folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
        self.folder, self._manifest, self.names = folder, manifest, list(names)

    @classmethod
    def open(cls, folder: Path, base: str | None = None) -> Library:
        """Open a library.

        Args:
            folder: holds `library.json`.
            base: fingerprint of the base model that it must be for; None: any.

        Raises:
            LibraryError: no library, an empty one, a manifest that cannot be read, or another base model.
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
        """The library in a folder, to add to, or an empty one that the first `add` writes.

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
        """The shape that all its LoRAs share."""
        return self._manifest.lora

    @property
    def base_model(self) -> ModelIdentity:
        """The base model that they adapt."""
        return self._manifest.base_model

    def entry(self, name: str) -> Entry:
        """How a LoRA came about."""
        return self._manifest.tasks[name]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> LoraWeights:
        """The LoRA of a task, in fp32.

        Raises:
            KeyError: the library has no such task.
            AdapterFileError: its folder is missing, malformed, or of another shape than the library.
        """
        if name not in self._manifest.tasks:
            raise KeyError(f"{self.folder} has no LoRA for {name}")
        return load_adapter_like(self.folder / name, self.spec).to(torch.float32)

    def subset(self, names: Iterable[str]) -> Library:
        """The same library with these tasks only.

        Raises:
            LibraryError: it lacks one of them, or none is left.
        """
        chosen = list(names)
        unknown = [name for name in chosen if name not in self.names]
        if unknown or not chosen:
            raise LibraryError(f"{self.folder} has no LoRA for {', '.join(unknown) or 'a choice of no task'}")
        return Library(self.folder, self._manifest, chosen)

    def add(self, adapters: Mapping[str, tuple[LoraWeights, Entry]]) -> None:
        """Write several LoRAs; a kill leaves either all of them listed or none.

        Raises:
            LibraryError: a name that cannot be a folder, or a LoRA of another shape.
            InvalidLoraError: weights that are not finite.
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
        """All LoRAs at once: A [len, layers, r, in] and B [len, layers, out, r] per module."""
        return LoraBatch.stack([self[name] for name in self.names])

    def average(self) -> LoraWeights:
        """The mean of all A and of all B, element by element: T2L's "average LoRA".

        The product of the means is not the mean of the products; it is what the paper compares with.
        """
        return LoraWeights.unflatten(self.spec, self._mean().float())

    def statistics(self) -> Statistics:
        """Mean and sample standard deviation of every weight, for z-scores as the reference takes them.

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
