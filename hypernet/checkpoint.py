"""A trained hypernetwork on disk: `config.json` and `hypernet.safetensors`.

The config holds everything needed to rebuild the network and to refuse the wrong base model or
encoder. A checkpoint contains no pickle, so opening one from an untrusted source runs no code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from hypernet.config import HypernetConfig, Record, first_problem
from hypernet.errors import T2lError
from hypernet.files import write_atomically
from hypernet.model import Hypernet

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "hypernet.safetensors"


class CheckpointError(T2lError):
    """A checkpoint folder that cannot be used.

    The message names the file and the field or tensor.
    """


class ModelIdentity(Record):
    """A model that a hypernetwork was trained with."""

    name: str
    """Hub id, or the name of a local folder."""
    fingerprint: str | None = None
    """Identity of its weights, see `base_model.fingerprint`. None: the checkpoint was imported
    without them, so a user of the checkpoint can only check names and shapes (see `generator`)."""

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint or 'weights not recorded'})"


class CheckpointConfig(Record):
    """`config.json` of a checkpoint."""

    schema_version: Literal[1] = 1
    hypernet: HypernetConfig
    base_model: ModelIdentity
    encoder: ModelIdentity
    training: dict[str, Any] = Field(default_factory=dict)
    """How the checkpoint was made, for readers. Nothing depends on it."""


def save_checkpoint(
    folder: Path, model: Hypernet, config: CheckpointConfig, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a checkpoint folder, with weights in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().to(dtype).contiguous() for name, t in model.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, save(state))
    write_atomically(folder / CONFIG_FILE, config.model_dump_json(indent=2) + "\n")


def load_checkpoint(folder: Path) -> tuple[Hypernet, CheckpointConfig]:
    """Read a checkpoint folder. The network is in fp32 and evaluation mode.

    Raises:
        CheckpointError: a file is missing, unreadable, truncated or of another schema, or a tensor
            is missing, unexpected, not finite or of another shape.
    """
    config = load_config(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a checkpoint needs {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    model = Hypernet(config.hypernet)
    _check_tensors(path, state, model.state_dict())
    model.load_state_dict(state)
    return model.eval(), config


def load_config(folder: Path) -> CheckpointConfig:
    """Read a checkpoint's `config.json` only.

    Raises:
        CheckpointError: the file is missing or a field is wrong.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: name a folder with a hypernetwork's {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    try:
        return CheckpointConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error


def fingerprint(folder: Path) -> str:
    """Identity of a checkpoint, 16 hex digits: its architecture and weights,
    not its training record.
    """
    config = load_config(folder)
    digest = hashlib.sha256(json.dumps(config.hypernet.model_dump(), sort_keys=True).encode())
    digest.update((folder / WEIGHTS_FILE).read_bytes())
    return digest.hexdigest()[:16]


def _check_tensors(path: Path, found: dict[str, torch.Tensor], needed: dict[str, torch.Tensor]) -> None:
    """Refuse a state dict that does not fit the architecture;
    the error names the first wrong tensor.
    """
    for name in sorted(needed.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(f"{path}: tensor {name} is missing")
        if name not in needed:
            raise CheckpointError(f"{path}: tensor {name} does not belong to this architecture")
        if found[name].shape != needed[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {tuple(found[name].shape)}, needs {tuple(needed[name].shape)}"
            )
        if not bool(found[name].isfinite().all()):
            raise CheckpointError(f"{path}: tensor {name} has values that are not finite")
