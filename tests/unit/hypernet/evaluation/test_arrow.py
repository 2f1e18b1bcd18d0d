"""Arrow against the same sums written out token by token with whole matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypernet.base_model import lora_spec
from hypernet.evaluation.arrow import Arrow, prototypes, routing_weights
from hypernet.frozen import FrozenBase
from hypernet.lora import LoraBatch


def test_prototypes_are_the_first_right_singular_vectors_of_the_products() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 3, 4, 20), torch.randn(5, 3, 12, 4)
    dense = torch.linalg.svd(b @ a).Vh[..., 0, :]  # [5, 3, 20]
    found = prototypes(a, b)
    torch.testing.assert_close((found * dense).sum(-1).abs(), torch.ones(5, 3))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(5, 3))


def test_an_expert_that_does_nothing_has_a_finite_prototype() -> None:
    assert prototypes(torch.randn(1, 4, 20), torch.zeros(1, 12, 4)).isfinite().all()


def test_the_best_experts_share_each_token_whatever_their_sign() -> None:
    torch.manual_seed(0)
    x, v = torch.randn(2, 7, 16), torch.randn(6, 16)
    found = routing_weights(x, v, 4)
    assert ((found > 0).sum(-1) == 4).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 7))
    torch.testing.assert_close(found, routing_weights(x, -v, 4))
    assert (found.argmax(-1) == (x @ v.T).abs().argmax(-1)).all()
    assert ((routing_weights(x, v[:2], 4) > 0).sum(-1) == 2).all()  # fewer experts than k


def test_routing_equals_the_dense_sums(tiny_base: Path) -> None:
    spec = lora_spec(tiny_base, rank=3, alpha=6, use_rslora=True)
    base = FrozenBase(tiny_base, spec, "cpu", torch.float32)
    torch.manual_seed(0)
    size = (6, spec.num_layers)
    experts = LoraBatch(
        {m.name: torch.randn(*size, spec.rank, m.in_features) for m in spec.modules},
        {m.name: torch.randn(*size, m.out_features, spec.rank) for m in spec.modules},
    )
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    path = f"model.layers.1.{spec.modules[0].path}"
    ids = torch.tensor([[5, 9, 2, 7, 11], [3, 3, 8, 1, 4]])
    before = base.model(ids).logits
    with Arrow(spec, experts, torch.float32).applied(base.model):
        last = base.model.get_submodule(path).register_forward_hook(
            lambda _, args, output: seen.update(routed=(args[0].clone(), output.clone()))
        )
        routed = base.model(ids).logits
    last.remove()
    assert (routed - before).abs().max() > 0.1
    torch.testing.assert_close(base.model(ids).logits, before)  # no trace

    x, output = seen["routed"]
    w = base.model.get_submodule(path).weight
    name = spec.modules[0].name
    delta = experts.b[name][:, 1] @ experts.a[name][:, 1]  # [6, out, in]
    v = torch.linalg.svd(delta).Vh[:, 0]  # [6, in]
    for row in range(2):
        for t in range(5):
            scores = (v @ x[row, t]).abs()
            best = scores.topk(4).indices
            weights = scores[best].softmax(0)
            mixed = sum(p * delta[e] @ x[row, t] for p, e in zip(weights, best, strict=True))
            torch.testing.assert_close(
                output[row, t], w @ x[row, t] + spec.scaling * mixed, rtol=1e-3, atol=1e-3
            )


@pytest.mark.parametrize("k", [1, 4])
def test_one_expert_is_a_plain_lora(tiny_base: Path, k: int) -> None:
    spec = lora_spec(tiny_base, rank=3, alpha=6)
    base = FrozenBase(tiny_base, spec, "cpu", torch.float32)
    torch.manual_seed(1)
    size = (1, spec.num_layers)
    expert = LoraBatch(
        {m.name: torch.randn(*size, spec.rank, m.in_features) for m in spec.modules},
        {m.name: torch.randn(*size, m.out_features, spec.rank) for m in spec.modules},
    )
    ids = torch.tensor([[5, 9, 2, 7, 11]])
    with base.adapted(expert):
        plain = base.model(ids).logits
    with Arrow(spec, expert, torch.float32, k).applied(base.model):
        torch.testing.assert_close(base.model(ids).logits, plain, rtol=1e-4, atol=1e-4)


def test_experts_move_to_the_device_of_the_model(tiny_base: Path) -> None:
    spec = lora_spec(tiny_base, rank=3, alpha=6)
    size = (2, spec.num_layers)
    experts = LoraBatch(
        {m.name: torch.randn(*size, spec.rank, m.in_features) for m in spec.modules},
        {m.name: torch.randn(*size, m.out_features, spec.rank) for m in spec.modules},
    )
    arrow = Arrow(spec, experts, torch.bfloat16, device="meta")
    assert {t.device.type for layers in arrow._layers.values() for layer in layers for t in layer} == {"meta"}
