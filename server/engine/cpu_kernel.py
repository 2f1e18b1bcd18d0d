"""LoRA on CPU as one masked product over all slots, in place of vLLM's gather of a weight copy per token.

vLLM 0.32 marks a row without an adapter by the slot index -1, and torch indexing
reads that as the last slot: a base request that runs beside an adapted one is
answered with somebody else's adapter. Here such a row is masked out of every
slot. The products are also cheaper: for T tokens and S slots of rank r,

    h = x A'          [T, in] x [in, S r]     all slots at once
    h = 0 where a token's slot is another     [T, S r]
    y += h B'         [T, S r] x [S r, out]

reads every adapter once per step, not once per token. Rounding is the stock
operator's: float32 inside a product, the model's dtype between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
    """True where a token is not of a slot. [tokens, slots in the range]"""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """By rank, `foreign` once for every column of h: the same for all layers of a step."""

    def mask(self, rank: int) -> Tensor:
        """True where h must be 0. [tokens, slots in the range * rank]"""
        if rank not in self.masks:
            self.masks[rank] = self.foreign.repeat_interleave(rank, dim=1)
        return self.masks[rank]


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
    return Rows(slice(first, last + 1), indices.unsqueeze(1) != slots)


def add_lora(
    y: Tensor, x: Tensor, a: tuple[Tensor, ...], b: tuple[Tensor, ...], scale: float, rows: Rows
) -> None:
    """Add each row's own LoRA to a packed linear layer's output, in place.

    A small model calls this thousands of times a second, so every op counts, Python's too: two
    products and a mask a slice, on views made beforehand, and the sum into y inside the second.

    Args:
        y: the layer's output, its slices side by side. [tokens, sum of outs]
        x: the layer's input. [tokens, in]
        a: per slice, A of every slot. [slots, 1, rank, in]
        b: per slice, B of every slot. [slots, 1, out, rank]
        scale: a factor on B A x.
        rows: which row belongs to which slot.
    """
    for part in parts_of(a, b, rows.slots):
        h = functional.linear(x, part.down)  # [tokens, slots rank]
        h.masked_fill_(rows.mask(part.rank), 0)
        # Where a row has no adapter h is 0, and adding 0 changes no bit of y.
        y.narrow(1, part.start, part.out).addmm_(h, part.up, alpha=scale)


@dataclass(frozen=True, slots=True)
class Part:
    """What one slice of a packed layer is multiplied by, for a range of slots."""

    start: int
    out: int
    rank: int
    down: Tensor
    """A of these slots. [slots rank, in]"""
    up: Tensor
    """B of these slots, transposed. [slots rank, out]"""


@dataclass(frozen=True, slots=True)
class Parts:
    """The slices of a layer that hold something; `k_proj` often never does, and costs nothing then."""

    slots: slice
    used: list[Part]
    empty: list[tuple[Tensor, int]]
    """B of the slices left out, and how often each had been written to when it was looked at."""


def parts_of(a: tuple[Tensor, ...], b: tuple[Tensor, ...], slots: slice) -> list[Part]:
    """The views that a step needs of a layer, remembered from the step before, as most are alike."""
    known: Parts | None = getattr(a[0], "t2l_parts", None)
    if known and known.slots == slots and all(empty._version == seen for empty, seen in known.empty):
        return known.used
    found, start, views = Parts(slots, [], []), 0, True
    for a_slice, b_slice in zip(a, b, strict=True):
        out, rank = b_slice.shape[2:]
        if b_slice.any():
            a_chosen, b_chosen = a_slice[slots], b_slice[slots].transpose(2, 3)
            down, up = a_chosen.flatten(0, 2), b_chosen.flatten(0, 2)
            views = views and down.data_ptr() == a_chosen.data_ptr() and up.data_ptr() == b_chosen.data_ptr()
            found.used.append(Part(start, out, rank, down, up))
        else:
            found.empty.append((b_slice, b_slice._version))
        start += out
    if views:  # a copy, where B is not `packed`, would grow stale
        a[0].t2l_parts = found  # type: ignore[attr-defined]
    return found.used


def packed(b: Tensor) -> Tensor:
    """The same values and shape [slots, 1, out, rank], laid out in memory as [slots, rank, out]."""
    return b.transpose(2, 3).contiguous().transpose(2, 3)


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
