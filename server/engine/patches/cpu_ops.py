"""Norms and rotary positions on the CPU by vLLM's own kernels, which its eager mode does not call there.

LoRA rules out compilation on a CPU, so each of a model's norms runs as eight small torch operations,
sixty times a step: 26 us where one kernel takes 4. vLLM ships that kernel and lets plugins offer
implementations of its operations, so this offers it; the kernel for rotary positions is only a setting.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PROVIDER = "t2l_cpu"
ARGUMENTS: dict[str, Any] = {
    "ir_op_priority": {"rms_norm": [PROVIDER], "fused_add_rms_norm": [PROVIDER]},
    "compilation_config": {"custom_ops": ["+rotary_embedding"]},
}
"""What an engine is to be started with, so that it takes these kernels where they fit."""


def install() -> None:
    """Offer the norms to vLLM."""
    from vllm import ir
    from vllm.platforms import current_platform

    current_platform.import_kernels()  # torch.ops._C
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_fits)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_fits_sum, inplace=True)(fused_add_rms_norm)


# Names and signatures are vLLM's own, which it compares.


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    """x / rms(x) * weight. [tokens, size]"""
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The norm of x + x_residual, and that sum: in place of x and of x_residual. [tokens, size] both."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def _fits(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return weight is not None and weight.dtype == x.dtype and variance_size is None and x.is_contiguous()


def _fits_sum(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _fits(x, weight, epsilon, variance_size) and x_residual.is_contiguous()
