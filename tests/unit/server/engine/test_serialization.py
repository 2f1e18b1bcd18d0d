"""Serialised adapters are restored unchanged, and unusable ones are rejected before."""

from __future__ import annotations

import math

import pytest
import torch

from hypernet.config import LoraSpec, ModuleShape
from hypernet.lora import LoraWeights
from server.engine import serialization
from server.errors import AdapterRejectedError

ENGINE = LoraSpec(
    rank=8,
    alpha=16,
    use_rslora=True,
    num_layers=3,
    modules=(
        ModuleShape(path="self_attn.q_proj", in_features=12, out_features=10),
        ModuleShape(path="mlp.down_proj", in_features=6, out_features=12),
    ),
)
CPU = torch.device("cpu")


def make(spec: LoraSpec = ENGINE, value: float | None = None) -> LoraWeights:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(spec.num_parameters, generator=generator)
    return LoraWeights.unflatten(spec, flat if value is None else torch.full_like(flat, value))


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_deserialising_restores_weights_and_scale(rank: int) -> None:
    weights = make(ENGINE.model_copy(update={"rank": rank, "use_rslora": True}))
    serialized = serialization.serialize(weights, ENGINE)
    arrived = serialization.deserialize(serialized.spec, bytes(serialized.data), CPU, torch.bfloat16)
    assert arrived.spec == weights.spec
    assert arrived.flatten().equal(weights.flatten().bfloat16())


def test_flat_bf16_weights_are_serialised_without_a_copy() -> None:
    flat = torch.randn(ENGINE.num_parameters).bfloat16()
    data = serialization.serialize(LoraWeights.unflatten(ENGINE, flat), ENGINE).data
    assert torch.frombuffer(data, dtype=torch.bfloat16).data_ptr() == flat.data_ptr()


def test_serialised_size_is_two_bytes_per_parameter() -> None:
    assert serialization.serialize(make(), ENGINE).data.nbytes == 2 * ENGINE.num_parameters


def test_weights_are_cast_to_the_engines_dtype() -> None:
    serialized = serialization.serialize(make(), ENGINE)
    arrived = serialization.deserialize(serialized.spec, bytes(serialized.data), CPU, torch.float16)
    assert arrived.a["q_proj"].dtype == torch.float16


def test_device_handle_transfers_a_copy_and_leaves_the_original_in_place() -> None:
    flat = torch.randn(ENGINE.num_parameters).bfloat16()
    place = flat.data_ptr()
    serialized = serialization.serialize(LoraWeights.unflatten(ENGINE, flat), ENGINE, as_handle=True)
    assert isinstance(serialized.data, list) and all(type(v) in (str, int, bytes) for v in serialized.data)
    arrived = serialization.deserialize(serialized.spec, serialized.data, CPU, torch.bfloat16)
    assert arrived.flatten().equal(flat) and flat.data_ptr() == place
    serialized.keepalive.zero_()  # the restored weights are a copy
    assert arrived.flatten().equal(flat)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 16}, "rank 16"),
        ({"num_layers": 4}, "4 layers"),
        ({"modules": ENGINE.modules[:1]}, "3 layers of q_proj"),
        ({"modules": ENGINE.modules[::-1]}, "down_proj .6 -> 12., q_proj"),
    ],
)
def test_adapter_of_another_shape_is_rejected(change: dict[str, object], message: str) -> None:
    with pytest.raises(AdapterRejectedError, match=message):
        serialization.serialize(make(ENGINE.model_copy(update=change)), ENGINE)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_non_finite_and_excessive_weights_are_rejected(value: float) -> None:
    with pytest.raises(AdapterRejectedError, match="not finite or above"):
        serialization.serialize(make(value=value), ENGINE)
