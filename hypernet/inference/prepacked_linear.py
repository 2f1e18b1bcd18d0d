"""Linear layers whose bf16 weights are packed once for the CPU's matrix library (oneDNN).

oneDNN multiplies bf16 matrices from its own memory layout. From plain weights it makes that layout
at every call, which is half of the work for one description.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LinearFn = Callable[[Tensor], Tensor]
"""[..., in] -> [..., out]"""


def linear_fn(weight: Tensor, bias: Tensor | None = None) -> LinearFn:
    """A linear function of a fixed weight, prepacked where possible. Results are equal to the bit.

    Args:
        weight: [out, in]; must not change afterwards. A prepacked function keeps no reference to
            it.
        bias: [out], in the weight's dtype.
    """
    if not can_prepack(weight):
        return lambda x: functional.linear(x, weight, bias)
    # torch.compile replaces frozen linear layers by the same two operators.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, bias, "none", [], "")


def can_prepack(weight: Tensor) -> bool:
    """Whether this build of torch can pack the weight: bf16 on a CPU, with oneDNN."""
    has_library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    can_pack = has_library and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return can_pack and weight.device.type == "cpu" and weight.dtype == torch.bfloat16


class PrepackedLinear(nn.Module):
    """A linear layer for inference that replaces a trained one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        bias = linear.bias
        self._linear = linear_fn(linear.weight.detach(), None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return self._linear(x)


def prepack(module: nn.Module) -> None:
    """Replace a model's linear layers by prepacked ones.

    The model can no longer be trained or saved.
    """
    for name, child in module.named_children():
        if type(child) is nn.Linear and can_prepack(child.weight):
            setattr(module, name, PrepackedLinear(child))
        else:
            prepack(child)
