"""LoRA shapes of a base model, from its `config.json` alone, and a fingerprint of its weights.

A hypernetwork needs the sizes of a few linear layers, not gigabytes of weights. Loading a 7B model
for them would add minutes to every start of a server or a training run. The sizes follow from a few
fields of the config, with the defaults that transformers applies where a field is absent.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypernet.config import LoraSpec, ModuleShape
from hypernet.errors import T2lError


class BaseModelError(T2lError):
    """A base model's folder or config that cannot be used. The message names the file or field."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Defaults that transformers applies to a `model_type` where a field is absent from
    config.json.

    None means derived: one key-value head per query head, or a head_dim of hidden_size / heads.
    """

    key_value_heads: int | None
    head_dim: int | None


FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(key_value_heads=None, head_dim=None),
    "mistral": _Family(key_value_heads=8, head_dim=None),
    "gemma2": _Family(key_value_heads=4, head_dim=256),
    "qwen2": _Family(key_value_heads=32, head_dim=None),
    "qwen3": _Family(key_value_heads=32, head_dim=128),
}

# module name -> (path in a decoder layer, input size, output size), with the names that `_size`
# knows
_MODULES: Mapping[str, tuple[str, str, str]] = {
    "q_proj": ("self_attn.q_proj", "hidden", "queries"),
    "k_proj": ("self_attn.k_proj", "hidden", "keys"),
    "v_proj": ("self_attn.v_proj", "hidden", "keys"),
    "o_proj": ("self_attn.o_proj", "queries", "hidden"),
    "gate_proj": ("mlp.gate_proj", "hidden", "intermediate"),
    "up_proj": ("mlp.up_proj", "hidden", "intermediate"),
    "down_proj": ("mlp.down_proj", "intermediate", "hidden"),
}
TARGET_MODULES: tuple[str, ...] = tuple(_MODULES)
"""Every linear layer of a decoder layer that a LoRA can adapt, by PEFT's short name."""


def lora_spec(
    config: Path | Mapping[str, Any],
    *,
    rank: int,
    alpha: float,
    use_rslora: bool = False,
    target_modules: Sequence[str] = ("q_proj", "v_proj"),
) -> LoraSpec:
    """The shapes of a LoRA for a base model.

    Args:
        config: a model's folder, its `config.json`, or the fields of that file.
        rank: r, the inner dimension of B A.
        alpha: alpha of the LoRA; see `LoraSpec.scaling`.
        use_rslora: scale by alpha / sqrt(r) instead of alpha / r.
        target_modules: names from `TARGET_MODULES`. Their order is the order of the module index.

    Raises:
        BaseModelError: the family or a module is unknown, or a field is missing or wrong.
    """
    fields = config if isinstance(config, Mapping) else read_config(config)
    family = FAMILIES.get(str(fields.get("model_type")))
    if family is None:
        raise BaseModelError(f"model_type is {fields.get('model_type')!r}, known are {', '.join(FAMILIES)}")
    modules = []
    for name in target_modules:
        if name not in _MODULES:
            raise BaseModelError(f"target_modules: {name!r} is unknown, known are {', '.join(_MODULES)}")
        path, inputs, outputs = _MODULES[name]
        modules.append(
            ModuleShape(
                path=path,
                in_features=_size(inputs, fields, family),
                out_features=_size(outputs, fields, family),
            )
        )
    return LoraSpec(
        rank=rank,
        alpha=alpha,
        use_rslora=use_rslora,
        num_layers=_field(fields, "num_hidden_layers"),
        modules=tuple(modules),
    )


def read_config(path: Path) -> dict[str, Any]:
    """The fields of a model's `config.json`, given the file or its folder.

    Raises:
        BaseModelError: the file is absent or not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BaseModelError(
            f"{file} cannot be read: {error.strerror}. Name a model's folder, which holds its config.json"
        ) from error
    except ValueError as error:
        raise BaseModelError(f"{file} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BaseModelError(f"{file}: not a JSON object")
    return fields


def _size(name: str, fields: Mapping[str, Any], family: _Family) -> int:
    """A size that `_MODULES` names, in features."""
    if name == "hidden":
        return _field(fields, "hidden_size")
    if name == "intermediate":
        return _field(fields, "intermediate_size")
    heads = _field(fields, "num_attention_heads")
    if name == "keys":
        return _key_value_heads(fields, family, heads) * _head_dim(fields, family, heads)
    return heads * _head_dim(fields, family, heads)


def _key_value_heads(fields: Mapping[str, Any], family: _Family, heads: int) -> int:
    # An explicit null means one key-value head per query head. An absent field means the family's
    # default.
    if fields.get("num_key_value_heads", family.key_value_heads) is None:
        return heads
    return _field(fields, "num_key_value_heads", family.key_value_heads)


def _head_dim(fields: Mapping[str, Any], family: _Family, heads: int) -> int:
    if fields.get("head_dim") is None and family.head_dim is None:
        hidden = _field(fields, "hidden_size")
        if hidden % heads:
            raise BaseModelError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
        return hidden // heads
    return _field(fields, "head_dim", family.head_dim)


def _field(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    if name not in fields and default is None:
        raise BaseModelError(f"{name} is missing from the base model's config")
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BaseModelError(f"{name} is {value!r} in the base model's config, needs a positive integer")
    return value


# Bytes of each sample. A merge, a fine-tune or another dtype changes large tensors throughout, so
# three short samples of each tensor tell two sets of weights apart.
_SAMPLE_BYTES = 1024
WEIGHT_INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit


def fingerprint(model_dir: Path) -> str:
    """Identity of a base model: 16 hex digits, equal for equal weights on every machine.

    Hashes `model_type` and, for every tensor in the safetensors files, its name, dtype, shape and
    three samples of 1 KiB (start, middle, end). This reads about 1 MB of a 16 GB model. Shards,
    file metadata, tokenizer and other config fields do not count, so a model that is saved again
    keeps its fingerprint. The fingerprint is no defence against weights forged to match.

    Raises:
        BaseModelError: no safetensors weights, or a file that is cut short or malformed.
    """
    digest = hashlib.sha256(str(read_config(model_dir).get("model_type")).encode())
    tensors = sorted(t for file in _weight_files(model_dir) for t in _tensors(file))
    for name, signature, file, start, end in tensors:
        digest.update(f"\n{name} {signature}\n".encode())
        with file.open("rb") as stream:
            for at in (start, (start + end - _SAMPLE_BYTES) // 2, end - _SAMPLE_BYTES):
                stream.seek(max(start, at))
                digest.update(stream.read(min(_SAMPLE_BYTES, end - start)))
    return digest.hexdigest()[:16]


def has_weights(model_dir: Path) -> bool:
    """Whether all safetensors files of a model are there,
    or only files such as its `config.json`.
    """
    return all(file.is_file() for file in _weight_files(model_dir))


def _weight_files(model_dir: Path) -> list[Path]:
    """The weight files that transformers loads.

    Other safetensors files in the folder do not count.
    """
    index = model_dir / WEIGHT_INDEX
    if not index.exists():
        return [model_dir / "model.safetensors"]
    shards = read_config(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise BaseModelError(f"{index}: weight_map is missing")
    return [model_dir / shard for shard in sorted(set(shards.values()))]


def _tensors(file: Path) -> Iterator[tuple[str, str, Path, int, int]]:
    """Name, dtype and shape, file, start and end byte of each tensor.

    A safetensors file is a u64 length, a JSON header of that length, and the data.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_MAX_HEADER_BYTES, size - 8):
                raise BaseModelError(f"{file}: header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            start, end = (8 + length + offset for offset in tensor["data_offsets"])
            if end > size:
                raise BaseModelError(f"{file}: cut short, {name} ends at byte {end} of {size}")
            yield name, f"{tensor['dtype']} {tensor['shape']}", file, start, end
    except OSError as error:
        raise BaseModelError(
            f"{file} cannot be read: {error.strerror}. The model needs weights in the safetensors format"
        ) from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{file}: not a safetensors file ({error!r})") from error
