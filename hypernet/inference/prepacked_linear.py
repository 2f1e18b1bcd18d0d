"""Linear layers whose weights the CPU's matrix library (oneDNN) has laid out once, not at every call.

In bf16 the library multiplies from a layout of its own. Given plain weights it makes that layout
anew each time: for one description that is half of the work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LinearFn = Callable[[Tensor], Tensor]
"""[..., in] -> [..., out]"""


def linear_fn(weight: Tensor, bias: Tensor | None = None) -> LinearFn:
    """What multiplies by a weight, prepared where that pays. The same numbers to the bit.

    Args:
        weight: [out, in]; must not change afterwards. Where it is packed, this keeps no hold on the plain one.
        bias: [out], of the same dtype.
    """
    if not can_prepack(weight):
        return lambda x: functional.linear(x, weight, bias)
    # The pair of operators that torch's own compiler puts in place of frozen linear layers.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, bias, "none", [], "")


def can_prepack(weight: Tensor) -> bool:
    """Whether this weight is of a kind that this build of torch can pack."""
    has_library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    can_pack = has_library and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return can_pack and weight.device.type == "cpu" and weight.dtype == torch.bfloat16


class PrepackedLinear(nn.Module):
    """A linear layer for inference, in place of a trained one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        bias = linear.bias
        self._linear = linear_fn(linear.weight.detach(), None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return self._linear(x)


def prepack(module: nn.Module) -> None:
    """Replace a model's linear layers, where they pack, for good: it can no longer be trained or saved."""
    for name, child in module.named_children():
        if type(child) is nn.Linear and can_prepack(child.weight):
            setattr(module, name, PrepackedLinear(child))
        else:
            prepack(child)
