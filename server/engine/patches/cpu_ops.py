"""Uses vLLM's own CPU kernels for norms and rotary positions, which its eager mode does not use
there.

vLLM does not compile models with LoRA on a CPU. Each norm then runs as eight small torch
operations, sixty times per step: 26 us instead of 4 us for one kernel. vLLM ships the kernel and
lets plugins register implementations of its operations, so this patch registers the kernel. The
kernel for rotary positions only needs an engine argument.
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
"""Engine arguments that give these kernels priority."""


def install() -> None:
    """Register the norm kernels as implementations of vLLM's operations."""
    from vllm import ir
    from vllm.platforms import current_platform

    current_platform.import_kernels()  # torch.ops._C
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_supports)(rms_norm)
    register = ir.ops.fused_add_rms_norm.register_impl
    register(PROVIDER, supports_args=_supports_fused, inplace=True)(fused_add_rms_norm)


# vLLM compares names and signatures with its own.


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    """RMS norm: x / rms(x) * weight. [tokens, size]"""
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Norm of x + x_residual, and the sum.

    They replace x and x_residual in place. [tokens, size] each
    """
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def _supports(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return weight is not None and weight.dtype == x.dtype and variance_size is None and x.is_contiguous()


def _supports_fused(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _supports(x, weight, epsilon, variance_size) and x_residual.is_contiguous()
