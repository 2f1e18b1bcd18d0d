"""Serialises adapters for the engine's process: one flat bf16 buffer and the spec as JSON.

Nothing is pickled and no file is written. An adapter whose weights are already one bf16 buffer is
sent without a copy. The scale is part of the spec: it is multiplied into B when B is copied into
its slot.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.lora import InvalidLoraError, LoraWeights
from server.engine.device_handles import DeviceHandle, export_handle, import_handle
from server.engine.interface import fits
from server.errors import AdapterRejectedError


@dataclass(frozen=True, slots=True)
class SerializedAdapter:
    """A serialised adapter: the spec as JSON, and the weights in the order of
    `LoraWeights.flatten`.
    """

    spec: str
    data: memoryview | DeviceHandle
    keepalive: Tensor
    """Owner of the memory. Keep it until the engine has loaded the adapter."""


def serialize(weights: LoraWeights, engine: LoraSpec, *, as_handle: bool = False) -> SerializedAdapter:
    """Validate and serialise an adapter.

    Args:
        weights: weights on any device.
        engine: shapes of the engine's slots.
        as_handle: pass a handle on the memory instead of its content (see `device_handles`).

    Raises:
        AdapterRejectedError: the weights contain NaN, infinite or excessive values, or do not fit
            the engine's slots.
    """
    spec = weights.spec
    if not fits(spec, engine):
        raise AdapterRejectedError(
            f"the adapter has rank {spec.rank} on {_describe_shapes(spec)}. The engine was started for "
            f"rank {engine.rank} or less on {_describe_shapes(engine)}. Use a checkpoint with these shapes"
        )
    try:
        weights.validate()
    except InvalidLoraError as error:
        raise AdapterRejectedError(f"the adapter is unusable: {error}") from error
    flat = weights.to(torch.bfloat16).flatten()  # no copy if the weights are one bf16 buffer
    if as_handle:
        return SerializedAdapter(spec.model_dump_json(), *export_handle(flat))
    flat = flat.cpu()
    return SerializedAdapter(spec.model_dump_json(), flat.view(torch.uint8).numpy().data, flat)


def deserialize(spec: str, data: bytes | DeviceHandle, device: torch.device, dtype: torch.dtype) -> LoraWeights:
    """Deserialise an adapter into read-only views of one buffer.

    In bf16 on a CPU the buffer is `data` itself. A copy would delay all streams, because the engine
    loads adapters between two steps.

    Args:
        spec: the field `spec` of a `SerializedAdapter`.
        data: its field `data`.
        device: device of the result.
        dtype: data type of the result.
    """
    if isinstance(data, list):
        return LoraWeights.unflatten(LoraSpec.model_validate_json(spec), import_handle(data, device, dtype))
    with warnings.catch_warnings(action="ignore"):  # torch warns that the buffer is read-only
        flat: Tensor = torch.frombuffer(data, dtype=torch.bfloat16)
    return LoraWeights.unflatten(LoraSpec.model_validate_json(spec), flat.to(device, dtype))


def _describe_shapes(spec: LoraSpec) -> str:
    names = ", ".join(f"{m.name} [{m.in_features} -> {m.out_features}]" for m in spec.modules)
    return f"{spec.num_layers} layers of {names}"
