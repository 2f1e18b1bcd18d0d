"""Distances between the products B A of two LoRAs, without the memory for B A of all layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hypernet.lora import LoraBatch


class _DeltaWDistance(torch.autograd.Function):
    """Mean |B A - B* A*| with gradients to A and B, holding one layer's product at a time.

    The product of a layer is out x in, hundreds of times larger than its factors. The gradient
    needs only the sign S of the difference: it is S A^T for B and B^T S for A. The forward pass
    computes both, so nothing of the size of a product is kept.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, a_star: Tensor, b_star: Tensor) -> Tensor:
        """[n, L, r, in], [n, L, out, r], twice -> [n]."""
        layers, size = a.shape[1], a.shape[1] * b.shape[-2] * a.shape[-1]
        total = a.new_zeros(a.shape[0])
        grad_a, grad_b = torch.empty_like(a), torch.empty_like(b)
        for i in range(layers):
            difference = b[:, i] @ a[:, i] - b_star[:, i] @ a_star[:, i]  # [n, out, in]
            total += difference.abs().sum(dim=(1, 2))
            sign = difference.sign_()
            grad_a[:, i] = b[:, i].mT @ sign  # [n, r, in]
            grad_b[:, i] = sign @ a[:, i].mT  # [n, out, r]
        ctx.save_for_backward(grad_a / size, grad_b / size)
        return total / size

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale the gradients that the forward pass computed."""
        (grad,) = grads  # [n]
        grad_a, grad_b = ctx.saved_tensors
        scale = grad.view(-1, 1, 1, 1)
        return scale * grad_a, scale * grad_b, None, None


def delta_w_distance(a: Tensor, b: Tensor, a_star: Tensor, b_star: Tensor) -> Tensor:
    """Mean |B A - B* A*| over layers and entries, of n pairs of LoRAs.

    Args:
        a, b: [n, L, r, in] and [n, L, out, r], with gradients.
        a_star, b_star: the same, without.

    Returns:
        [n].
    """
    distance: Tensor = _DeltaWDistance.apply(a, b, a_star, b_star)  # type: ignore[no-untyped-call]
    return distance


def relative_error(adapters: LoraBatch, target: LoraBatch) -> Tensor:
    """|B A - B* A*| / |B* A*| in the Frobenius norm over all layers and modules. [n].

    0: exact. 1: as far as a LoRA of zeros. For a target of zero it is the distance itself.
    """
    return squared_relative_error(adapters, target).sqrt()


def squared_relative_error(adapters: LoraBatch, target: LoraBatch) -> Tensor:
    """The square of `relative_error`, with a gradient everywhere. [n].

    |B A|^2 is the sum of all entries of (B^T B) * (A A^T). With [B, -B*] and [A; A*] as one
    LoRA of twice the rank, no product of the size of a layer is computed.
    """
    wrong = whole = torch.zeros((), dtype=torch.float64)
    for name in adapters.a:
        a, b = target.a[name].double(), target.b[name].double()
        both_a = torch.cat([adapters.a[name].double(), a], dim=-2)  # [n, L, 2r, in]
        both_b = torch.cat([adapters.b[name].double(), -b], dim=-1)  # [n, L, out, 2r]
        wrong = wrong + _squared_norm(both_a, both_b)
        whole = whole + _squared_norm(a, b)
    return wrong.clamp(min=0) / torch.where(whole > 0, whole, 1.0)


def _squared_norm(a: Tensor, b: Tensor) -> Tensor:
    """|B A|^2 summed over layers. [n]."""
    return ((b.mT @ b) * (a @ a.mT)).sum(dim=(1, 2, 3))
