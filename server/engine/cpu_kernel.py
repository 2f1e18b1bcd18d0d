"""LoRA on CPU as one masked product over all slots, in place of vLLM's gather of a weight copy per token.

vLLM 0.32 marks a row without an adapter by the slot index -1, and torch indexing
reads that as the last slot: a base request that runs beside an adapted one is
answered with somebody else's adapter. Here such a row is masked out of every
slot. The products are also cheaper: for T tokens and S slots of rank r,

    h = x A'          [T, in] x [in, S r]     all slots at once
    h = 0 where a token's slot is another     [T, S, r]
    y += h B          [T, S r] x [S r, out]

reads every adapter once per step, not once per token. Rounding is the stock
operator's: float32 inside a product, the model's dtype between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a step belong to which slot."""

    slots: slice
    """The range of slots in use."""
    foreign: Tensor
    """True where a token is not of a slot. [tokens, slots in the range, 1]"""


def rows_of(indices: Tensor) -> Rows | None:
    """Work out once per step what every layer needs.

    Args:
        indices: slot of each token, -1 for none. [tokens]

    Returns:
        None when no token has an adapter.
    """
    if indices.numel() == 0 or (last := int(indices.max())) < 0:
        return None
    first = int(indices[indices >= 0].min())
    slots = torch.arange(first, last + 1, device=indices.device)
    return Rows(slice(first, last + 1), (indices.unsqueeze(1) != slots).unsqueeze(2))


def add_lora(
    y: Tensor, x: Tensor, a: tuple[Tensor, ...], b: tuple[Tensor, ...], scale: float, rows: Rows
) -> None:
    """Add each row's own LoRA to a packed linear layer's output, in place.

    Args:
        y: the layer's output, its slices side by side. [tokens, sum of outs]
        x: the layer's input. [tokens, in]
        a: per slice, A of every slot. [slots, 1, rank, in]
        b: per slice, B of every slot. [slots, 1, out, rank]
        scale: a factor on B A x.
        rows: which row belongs to which slot.
    """
    start = 0
    for a_slice, b_slice in zip(a, b, strict=True):
        out = b_slice.shape[2]
        if is_used(b_slice):
            a_all = a_slice[rows.slots, 0].flatten(0, 1)  # [slots rank, in]
            # A view where B was made by `packed`.
            b_all = b_slice[rows.slots, 0].permute(1, 0, 2).flatten(1, 2)  # [out, slots rank]
            h = functional.linear(x, a_all.to(x.dtype))  # [tokens, slots rank]
            h.view(*rows.foreign.shape[:2], -1).masked_fill_(rows.foreign, 0)
            if scale != 1:
                h *= scale
            y[:, start : start + out] += functional.linear(h.to(y.dtype), b_all.to(y.dtype))
        start += out


def packed(b: Tensor) -> Tensor:
    """The same values and shape [slots, 1, out, rank], laid out in memory as [out, slots, rank]."""
    return b[:, 0].permute(1, 0, 2).contiguous().permute(1, 0, 2).unsqueeze(1)


def is_used(b: Tensor) -> bool:
    """Whether any slot ever held something here; `k_proj` often never does, and costs nothing then.

    Looked up again only after a write, which torch counts, and never again after the first find.
    """
    seen = getattr(b, "t2l_seen", -1)
    if seen is None:
        return True
    if seen == b._version:
        return False
    used = bool(b.any())
    b.t2l_seen = None if used else b._version  # type: ignore[attr-defined]
    return used


def install() -> None:
    """Replace the operator in vLLM's classes. The stock functions stay reachable as `__wrapped__`."""
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    PunicaWrapperCPU.update_metadata = _with_rows(PunicaWrapperCPU.update_metadata)
    PunicaWrapperCPU.add_lora_linear = _replacing(PunicaWrapperCPU.add_lora_linear)
    for layer in (BaseLinearLayerWithLoRA, MergedColumnParallelLinearWithLoRA):
        layer.create_lora_weights = _with_packed_b(layer.create_lora_weights)


def _with_rows(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        self.t2l_rows = rows_of(self.token_lora_indices)

    return update_metadata


def _replacing(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def add_lora_linear(
        self: Any,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],  # as long as the B's are, on every CPU layer
        **_: Any,
    ) -> None:
        if self.t2l_rows is not None:
            y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
            add_lora(y, x, lora_a_stacked, lora_b_stacked, scale, self.t2l_rows)

    return add_lora_linear


def _with_packed_b(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def create_lora_weights(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        self.lora_b_stacked = tuple(packed(b) for b in self.lora_b_stacked)

    return create_lora_weights
