"""Reads and writes PEFT adapter folders.

A folder holds `adapter_config.json` and `adapter_model.safetensors` in the format of PEFT 0.21.
`peft.PeftModel.from_pretrained` and `vllm --lora-modules` load it unchanged. PEFT has many kinds of
adapter. The reader accepts plain LoRA and refuses others by field name, because an unknown field
may change the meaning of the weights. No pickle is opened.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hypernet.adapter_card import adapter_card
from hypernet.base_model import lora_spec
from hypernet.config import LoraSpec, ModuleShape, first_problem
from hypernet.files import write_atomically
from hypernet.lora import InvalidLoraError, LoraWeights
from hypernet.model_paths import hub_id, model_name

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
CARD_FILE = "README.md"

BASE_MODEL_KEY = "t2l.base_model"
"""Provenance: fingerprint of the base model."""


class AdapterFileError(InvalidLoraError):
    """A PEFT adapter folder that cannot be read.

    The message names the file and the field or tensor.
    """


def provenance(description: str, checkpoint: str, base_model: str) -> dict[str, str]:
    """Where an adapter came from, for `dump_adapter`. It holds a hash of the description, not the
    text.

    Args:
        description: the task description.
        checkpoint: fingerprint of the hypernetwork that generated it.
        base_model: fingerprint of the base model that it adapts; empty: not known.
    """
    return {
        "t2l.description_sha256": sha256(description.encode()).hexdigest(),
        "t2l.checkpoint": checkpoint,
        **({BASE_MODEL_KEY: base_model} if base_model else {}),
        "t2l.version": version("t2l-server"),
    }


def dump_adapter(
    weights: LoraWeights, base_model: str, provenance: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """The files of a PEFT adapter folder, by name. Equal arguments give equal bytes.

    Args:
        weights: the adapter, stored in its own dtype.
        base_model: the base model: a hub id, a folder, or the bundled model's name. The hub id
            becomes PEFT's `base_model_name_or_path`. A local model has none: its folder's name is
            written, and README.md says how to load the adapter.
        provenance: stored in the safetensors metadata; `read_provenance` returns it.

    Raises:
        InvalidLoraError: the weights do not fit their own spec.
    """
    weights.validate()
    spec, name = weights.spec, model_name(base_model)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if spec.alpha.is_integer() else spec.alpha,
        "use_rslora": spec.use_rslora,
        "target_modules": [m.name for m in spec.modules],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
    }
    tensors: dict[str, Tensor] = {}
    for m in spec.modules:
        for layer in range(spec.num_layers):
            tensors[_tensor_name(m, layer, "A")] = weights.a[m.name][layer].detach().contiguous()  # [r, in]
            tensors[_tensor_name(m, layer, "B")] = weights.b[m.name][layer].detach().contiguous()  # [out, r]
    card = adapter_card(
        spec,
        name,
        on_hub=hub_id(base_model) is not None,
        fingerprint=(provenance or {}).get(BASE_MODEL_KEY),
    )
    return {
        CARD_FILE: card.encode(),
        CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(),
        WEIGHTS_FILE: _sort_metadata(save(tensors, metadata={"format": "pt"} | dict(provenance or {}))),
    }


def save_adapter(
    folder: Path, weights: LoraWeights, base_model: str, provenance: Mapping[str, str] | None = None
) -> None:
    """Write a PEFT adapter folder. Arguments and errors as in `dump_adapter`."""
    files = dump_adapter(weights, base_model, provenance)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)


def load_adapter(folder: Path, base: Path | Mapping[str, Any]) -> LoraWeights:
    """Read a PEFT adapter folder for a base model, in the stored dtype.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        base: the base model's folder, its `config.json`, or the fields of that file.

    Raises:
        AdapterFileError: a file is missing or malformed, or the adapter is more than a plain LoRA.
        InvalidLoraError: a tensor has a wrong shape, dtype or value.
        BaseModelError: the base model's config cannot be understood, or lacks a target module.
    """
    weights = _read_weights(folder, read_spec(folder, base))
    weights.validate()
    return weights


def load_adapter_like(folder: Path, spec: LoraSpec) -> LoraWeights:
    """Read a PEFT adapter folder that must have a known shape, whatever order its modules are
    listed in.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        spec: shapes and scale, as a library has them for all its adapters.

    Raises:
        AdapterFileError: a file is missing or malformed, or the adapter has another shape or scale.
        InvalidLoraError: a tensor has a value that is not finite.
    """
    config = _read_config(folder)
    for field, found, needed in (
        ("r", config.r, spec.rank),
        ("lora_alpha", config.lora_alpha, spec.alpha),
        ("use_rslora", config.use_rslora, spec.use_rslora),
        ("target_modules", sorted(config.target_modules), sorted(m.name for m in spec.modules)),
    ):
        if found != needed:
            raise AdapterFileError(f"{folder / CONFIG_FILE}: {field} is {found!r}, needs {needed!r}")
    weights = _read_weights(folder, spec)
    weights.validate()
    return weights


def read_spec(folder: Path, base: Path | Mapping[str, Any]) -> LoraSpec:
    """The LoRA spec in `adapter_config.json`, with modules in the order of `target_modules`.

    PEFT keeps a set there, so files written by PEFT have an arbitrary order. Arguments and errors
    as in `load_adapter`.
    """
    config = _read_config(folder)
    try:
        return lora_spec(
            base,
            rank=config.r,
            alpha=config.lora_alpha,
            use_rslora=config.use_rslora,
            target_modules=config.target_modules,
        )
    except ValidationError as error:
        raise AdapterFileError(f"{folder / CONFIG_FILE}: {first_problem(error)}") from error


def read_provenance(folder: Path) -> dict[str, str]:
    """The provenance that `dump_adapter` stored; empty for adapters of other programs.

    Raises:
        AdapterFileError: the weights file is missing or malformed.
    """
    try:
        with safe_open(_weights_file(folder), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise AdapterFileError(f"{folder / WEIGHTS_FILE}: not a whole safetensors file ({error})") from error
    return {key: value for key, value in metadata.items() if key != "format"}


# Fields without influence on inference. Any other field, known or from a later version of PEFT,
# must be off or one of `_PlainLora`.
_IGNORED_FIELDS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)


class _PlainLora(BaseModel):
    """`adapter_config.json` of an adapter that consists of A, B and a scale only."""

    model_config = ConfigDict(extra="allow")

    peft_type: Literal["LORA"]
    r: StrictInt = Field(gt=0, le=512)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    use_rslora: StrictBool = False
    target_modules: list[str] = Field(min_length=1)
    bias: Literal["none"] = "none"
    # Other initialisations (PiSSA, OLoRA, LoftQ, CorDA) also change the base weights.
    init_lora_weights: bool | Literal["gaussian"] = True


def _read_config(folder: Path) -> _PlainLora:
    path = folder / CONFIG_FILE
    try:
        config = _PlainLora.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AdapterFileError(f"{path} cannot be read: a PEFT adapter needs it ({error})") from error
    except ValidationError as error:
        raise AdapterFileError(f"{path}: {first_problem(error)}") from error
    for field, value in (config.model_extra or {}).items():
        if value and field not in _IGNORED_FIELDS:
            raise AdapterFileError(f"{path}: {field} is {value!r}, but only plain LoRA can be read")
    return config


def _read_weights(folder: Path, spec: LoraSpec) -> LoraWeights:
    path = _weights_file(folder)
    a: dict[str, Tensor] = {}
    b: dict[str, Tensor] = {}
    needed = {_tensor_name(m, layer, k) for m in spec.modules for layer in range(spec.num_layers) for k in "AB"}
    try:
        with safe_open(path, framework="pt") as file:
            for name in sorted(needed ^ set(file.keys())):
                what = "is missing" if name in needed else "belongs to no target module of the base model"
                raise AdapterFileError(f"{path}: tensor {name} {what}")
            for m in spec.modules:
                for out, kind, shape in (
                    (a, "A", (spec.rank, m.in_features)),
                    (b, "B", (m.out_features, spec.rank)),
                ):
                    layers = []
                    for name in (_tensor_name(m, layer, kind) for layer in range(spec.num_layers)):
                        layers.append(file.get_tensor(name))
                        found = (tuple(layers[-1].shape), layers[-1].dtype)
                        if found != (shape, layers[0].dtype):
                            raise AdapterFileError(
                                f"{path}: tensor {name} is {found}, needs {shape, layers[0].dtype}"
                            )
                    out[m.name] = torch.stack(layers)  # [layers, r, in] or [layers, out, r]
    except SafetensorError as error:
        raise AdapterFileError(f"{path}: not a whole safetensors file ({error})") from error
    return LoraWeights(spec, a, b)


def _weights_file(folder: Path) -> Path:
    path = folder / WEIGHTS_FILE
    if path.is_file():
        return path
    if (folder / PICKLE_FILE).exists():
        raise AdapterFileError(
            f"{folder / PICKLE_FILE} is a pickle, which can run code when opened, and is not read: "
            f"load it with PEFT where you trust it and save it again as {WEIGHTS_FILE}"
        )
    raise AdapterFileError(f"{path} is missing: a PEFT adapter needs it")


def _tensor_name(m: ModuleShape, layer: int, kind: str) -> str:
    return f"base_model.model.model.layers.{layer}.{m.path}.lora_{kind}.weight"


def _sort_metadata(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file. The library writes it in random order.

    A file is a u64 length, a JSON header padded to 8 bytes, and the data. Data offsets count from
    the start of the data, so the header can be replaced.
    """
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]
