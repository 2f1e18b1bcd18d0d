"""LoRA on CPU as one masked product over all slots, in place of vLLM's gather of a weight copy per token.

vLLM 0.32 marks a row without an adapter by the slot index -1, and torch indexing
reads that as the last slot: a base request that runs beside an adapted one is
answered with somebody else's adapter. Here such a row is masked out of every
slot. The products are also cheaper: for T tokens and S slots of rank r,

    h = x A'          [T, in] x [in, S r]     all slots at once
    h = 0 where a token's slot is another     [T, S r]
    y += h B'         [T, S r] x [S r, out]

reads every adapter once per step, not once per token. Where few rows have an adapter
and there is a compiler, `compiled.py` takes each row's own slot instead, without a
library's preparations. Rounding is the stock operator's in both: float32 inside a
product, the model's dtype between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from server.engine.patches import native_kernel as compiled

FEW = 256
"""Rows up to which the compiled kernel beats a matrix library."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a step belong to which slot."""

    indices: Tensor
    """The slot of each token, -1 for none. [tokens]"""
    tokens: Tensor
    """The tokens that have an adapter, slot by slot. [n]"""
    their_slots: Tensor
    """The slot of each of them. [n]"""
    slots: slice
    """The range of slots in use."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """Of every rank, the same for all layers of a step."""

    def mask(self, rank: int) -> Tensor:
        """True where h must be 0: the token is not of the slot. [tokens, slots in the range * rank]"""
        if rank not in self.masks:
            slots = torch.arange(self.slots.start, self.slots.stop, device=self.indices.device)
            self.masks[rank] = (self.indices.unsqueeze(1) != slots).repeat_interleave(rank, dim=1)
        return self.masks[rank]


def rows_of(indices: Tensor) -> Rows | None:
    """Work out once per step what every layer needs.

    Args:
        indices: slot of each token, -1 for none. [tokens], int64

    Returns:
        None when no token has an adapter.
    """
    slots, tokens = indices.sort(stable=True)
    bare = int((indices < 0).sum())
    if bare == len(slots):
        return None
    return Rows(indices, tokens[bare:], slots[bare:], slice(int(slots[bare]), int(slots[-1]) + 1))


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
    parts = parts_of(a, b)
    kernel = compiled.kernel() if rows.tokens.shape[0] <= FEW else None
    if kernel and kernel.add_lora(y, x, parts.table, rows.tokens, rows.their_slots, scale):
        return
    for part in parts.of(rows.slots):
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

    def of(self, slots: slice) -> Part:
        """The same for some of its slots."""
        rows = slice(slots.start * self.rank, slots.stop * self.rank)
        return Part(self.start, self.out, self.rank, self.down[rows], self.up[rows])


class Parts:
    """The slices of a layer that hold something; `k_proj` often never does, and costs nothing then."""

    def __init__(self, used: list[Part], empty: list[Tensor]) -> None:
        self.used = used
        self.table = compiled.Table([(part.start, part.down, part.up, part.rank) for part in used])
        self._empty = [(b, b._version) for b in empty]
        self._last: tuple[slice, list[Part]] | None = None

    @property
    def holds(self) -> bool:
        """Whether B of the slices left out is as it was when it was looked at."""
        return all(b._version == seen for b, seen in self._empty)

    def of(self, slots: slice) -> list[Part]:
        """For a range of slots, remembered from the step before, as most are alike."""
        if self._last is None or self._last[0] != slots:
            self._last = slots, [part.of(slots) for part in self.used]
        return self._last[1]


def parts_of(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Parts:
    """The views that a step needs of a layer, made once."""
    known: Parts | None = getattr(a[0], "t2l_parts", None)
    if known is not None and known.holds:
        return known
    used, empty, start, views = list[Part](), list[Tensor](), 0, True
    for a_slice, b_slice in zip(a, b, strict=True):
        out, rank = b_slice.shape[2:]
        if b_slice.any():
            down, up = a_slice.flatten(0, 2), b_slice.transpose(2, 3).flatten(0, 2)
            views = views and down.data_ptr() == a_slice.data_ptr() and up.data_ptr() == b_slice.data_ptr()
            used.append(Part(start, out, rank, down, up))
        else:
            empty.append(b_slice)
        start += out
    found = Parts(used, empty)
    if views:  # a copy, where B is not `packed`, would grow stale
        a[0].t2l_parts = found  # type: ignore[attr-defined]
    return found


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
        compiled.kernel()  # now, not in a step

    return create_lora_weights
