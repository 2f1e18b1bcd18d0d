"""An adapter as it crosses into the engine's process: one flat bf16 buffer of plain bytes.

Nothing is pickled, no file is written, and a sealed adapter is sent from where it lies.
The scale goes along as a number and is folded in where B is copied anyway, into its slot.
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
    """An encoded adapter: the spec's JSON, and the numbers as `LoraWeights.flatten` orders them."""

    spec: str
    data: memoryview | DeviceHandle
    keepalive: Tensor
    """What the data are of; has to live until the parcel has arrived."""


def serialize(weights: LoraWeights, engine: LoraSpec, *, as_handle: bool = False) -> SerializedAdapter:
    """Check an adapter and pack it for an engine that was started for `engine`.

    Args:
        weights: on any device.
        engine: the shapes of its slots.
        as_handle: send a handle instead of the numbers (see `device_handles`).

    Raises:
        AdapterRejectedError: the weights are broken, or do not fit the engine's slots.
    """
    spec = weights.spec
    if not fits(spec, engine):
        raise AdapterRejectedError(
            f"the adapter is of rank {spec.rank} on {_describe_shapes(spec)}; "
            f"the engine takes rank {engine.rank} or less on {_describe_shapes(engine)}"
        )
    try:
        weights.validate()
    except InvalidLoraError as error:
        raise AdapterRejectedError(f"the adapter is not usable: {error}") from error
    flat = weights.to(torch.bfloat16).flatten()  # as the server keeps adapters: nothing is copied
    if as_handle:
        return SerializedAdapter(spec.model_dump_json(), *export_handle(flat))
    flat = flat.cpu()
    return SerializedAdapter(spec.model_dump_json(), flat.view(torch.uint8).numpy().data, flat)


def deserialize(spec: str, data: bytes | DeviceHandle, device: torch.device, dtype: torch.dtype) -> LoraWeights:
    """Undo `encode`: the weights as views into one buffer. Only to be read.

    On a CPU that computes in bf16 the buffer is `data` itself: nothing is copied while every stream waits.
    """
    if isinstance(data, list):
        return LoraWeights.unflatten(LoraSpec.model_validate_json(spec), import_handle(data, device, dtype))
    with warnings.catch_warnings(action="ignore"):  # torch warns of bytes that must not be written to
        flat: Tensor = torch.frombuffer(data, dtype=torch.bfloat16)
    return LoraWeights.unflatten(LoraSpec.model_validate_json(spec), flat.to(device, dtype))


def _describe_shapes(spec: LoraSpec) -> str:
    names = ", ".join(f"{m.name} [{m.in_features} -> {m.out_features}]" for m in spec.modules)
    return f"{spec.num_layers} layers of {names}"
