"""LoRA weights as values."""

from __future__ import annotations

import torch

from hypernet.config import LoraSpec, ModuleShape
from hypernet.lora import LoraWeights

SPEC = LoraSpec(
    rank=2,
    alpha=4,
    num_layers=3,
    modules=(
        ModuleShape(path="self_attn.q_proj", in_features=4, out_features=5),
        ModuleShape(path="self_attn.v_proj", in_features=4, out_features=2),
    ),
)


def test_flattening_returns_the_unflattened_vector() -> None:
    flat = torch.randn(SPEC.num_parameters + 3)[3:]
    again = LoraWeights.unflatten(SPEC, flat).flatten()
    assert again.equal(flat) and again.data_ptr() == flat.data_ptr()


def test_separate_tensors_are_flattened_in_order() -> None:
    flat = torch.randn(SPEC.num_parameters)
    views = LoraWeights.unflatten(SPEC, flat)
    apart = LoraWeights(SPEC, {m: t.clone() for m, t in views.a.items()}, dict(views.b))
    assert apart.flatten().equal(flat)
    strided = LoraWeights(SPEC, {m: t.mT.contiguous().mT for m, t in views.a.items()}, dict(views.b))
    assert strided.flatten().equal(flat)


def test_every_weight_gets_its_gradient() -> None:
    flat = torch.randn(SPEC.num_parameters, requires_grad=True)
    LoraWeights.unflatten(SPEC, flat).flatten().square().sum().backward()
    assert flat.grad is not None and torch.allclose(flat.grad, 2 * flat)
