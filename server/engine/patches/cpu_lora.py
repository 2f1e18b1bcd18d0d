"""LoRA on CPU as one masked product over all slots, in place of vLLM's gather of a weight copy per token.

vLLM 0.32 marks a row without an adapter by the slot index -1, and torch indexing
reads that as the last slot: a base request that runs beside an adapted one is
answered with somebody else's adapter. Here such a row is masked out of every
slot. The products are also cheaper: for T tokens and S slots of rank r,

    h = x A'          [T, in] x [in, S r]     all slots at once
    h = 0 where a token's slot is another     [T, S r]
    y += h B'         [T, S r] x [S r, out]

reads every adapter once per step, not once per token. Where few rows have an adapter
and there is a compiler, `native_kernel.py` takes each row's own slot instead, without a
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

from server.engine.patches import native_kernel
from server.engine.patches.native_kernel import Kernel

MAX_NATIVE_ROWS = 256
"""Rows up to which the compiled kernel beats a matrix library."""


@dataclass(frozen=True, slots=True)
class TokenSlotMapping:
    """Which rows of a step belong to which slot."""

    token_slots: Tensor
    """The slot of each token, -1 for none. [tokens]"""
    adapted_tokens: Tensor
    """The tokens that have an adapter, slot by slot. [n]"""
    adapted_slots: Tensor
    """The slot of each of them. [n]"""
    slot_range: slice
    """The range of slots in use."""
    kernel: Kernel | None
    """The compiled kernel, if this step is to use it."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """Of every rank, the same for all layers of a step."""

    def mask(self, rank: int) -> Tensor:
        """True where h must be 0: the token is not of the slot. [tokens, slots in the range * rank]"""
        if rank not in self.masks:
            slots = torch.arange(self.slot_range.start, self.slot_range.stop, device=self.token_slots.device)
            self.masks[rank] = (self.token_slots.unsqueeze(1) != slots).repeat_interleave(rank, dim=1)
        return self.masks[rank]


def map_tokens_to_slots(token_slots: Tensor, kernel: Kernel | None) -> TokenSlotMapping | None:
    """Compute once per step what every layer needs.

    Args:
        token_slots: slot of each token, -1 for none. [tokens], int64
        kernel: the compiled kernel, if there is one. Steps with many adapted tokens do not use it.

    Returns:
        None if no token has an adapter.
    """
    slots, tokens = token_slots.sort(stable=True)
    first = int((token_slots < 0).sum())  # sorted, tokens without an adapter come first
    if first == len(slots):
        return None
    slots, tokens = slots[first:], tokens[first:]
    slot_range = slice(int(slots[0]), int(slots[-1]) + 1)
    kernel = kernel if len(tokens) <= MAX_NATIVE_ROWS else None
    return TokenSlotMapping(token_slots, tokens, slots, slot_range, kernel)


def add_lora(
    y: Tensor, x: Tensor, a: tuple[Tensor, ...], b: tuple[Tensor, ...], scale: float, rows: TokenSlotMapping
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
    layer = layer_weights(a, b)
    if rows.kernel and rows.kernel.add_lora(
        y, x, layer.descriptor, rows.adapted_tokens, rows.adapted_slots, scale
    ):
        return
    for slice_ in layer.for_slots(rows.slot_range):
        h = functional.linear(x, slice_.down)  # [tokens, slots rank]
        h.masked_fill_(rows.mask(slice_.rank), 0)
        # Where a row has no adapter h is 0, and adding 0 changes no bit of y.
        y.narrow(1, slice_.start, slice_.out).addmm_(h, slice_.up, alpha=scale)


@dataclass(frozen=True, slots=True)
class SliceWeights:
    """What one slice of a packed layer is multiplied by, for a range of slots."""

    start: int
    out: int
    rank: int
    down: Tensor
    """A of these slots. [slots rank, in]"""
    up: Tensor
    """B of these slots, transposed. [slots rank, out]"""

    def for_slots(self, slots: slice) -> SliceWeights:
        """The same for some of its slots."""
        rows = slice(slots.start * self.rank, slots.stop * self.rank)
        return SliceWeights(self.start, self.out, self.rank, self.down[rows], self.up[rows])


class LayerWeights:
    """The slices of a layer that hold something; `k_proj` often never does, and costs nothing then."""

    def __init__(self, used: list[SliceWeights], empty: list[Tensor]) -> None:
        self.used = used
        self.descriptor = native_kernel.LayerDescriptor([(s.start, s.down, s.up, s.rank) for s in used])
        self._empty = [(b, b._version) for b in empty]
        self._last: tuple[slice, list[SliceWeights]] | None = None

    @property
    def is_current(self) -> bool:
        """Whether B of the slices left out is as it was when it was looked at."""
        return all(b._version == seen for b, seen in self._empty)

    def for_slots(self, slots: slice) -> list[SliceWeights]:
        """For a range of slots, remembered from the step before, as most are alike."""
        if self._last is None or self._last[0] != slots:
            self._last = slots, [slice_.for_slots(slots) for slice_ in self.used]
        return self._last[1]


def layer_weights(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> LayerWeights:
    """The views that a step needs of a layer, made once."""
    known: LayerWeights | None = getattr(a[0], "t2l_layer_weights", None)
    if known is not None and known.is_current:
        return known
    used, empty, start, views = list[SliceWeights](), list[Tensor](), 0, True
    for a_slice, b_slice in zip(a, b, strict=True):
        out, rank = b_slice.shape[2:]
        if b_slice.any():
            down, up = a_slice.flatten(0, 2), b_slice.transpose(2, 3).flatten(0, 2)
            views = views and down.data_ptr() == a_slice.data_ptr() and up.data_ptr() == b_slice.data_ptr()
            used.append(SliceWeights(start, out, rank, down, up))
        else:
            empty.append(b_slice)
        start += out
    found = LayerWeights(used, empty)
    if views:  # a copy, where B is not `packed`, would grow stale
        a[0].t2l_layer_weights = found  # type: ignore[attr-defined]
    return found


def to_rank_major(b: Tensor) -> Tensor:
    """The same values and shape [slots, 1, out, rank], laid out in memory as [slots, rank, out]."""
    return b.transpose(2, 3).contiguous().transpose(2, 3)


def install(*, compile_kernel: bool) -> None:
    """Replace the operator in vLLM's classes. The stock functions stay reachable as `__wrapped__`.

    Args:
        compile_kernel: compile the native kernel, if the machine has a C++ compiler.
    """
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    kernel = native_kernel.load_kernel() if compile_kernel else None

    PunicaWrapperCPU.update_metadata = _wrap_update_metadata(PunicaWrapperCPU.update_metadata, kernel)
    PunicaWrapperCPU.add_lora_linear = _wrap_add_lora_linear(PunicaWrapperCPU.add_lora_linear)
    for layer in (BaseLinearLayerWithLoRA, MergedColumnParallelLinearWithLoRA):
        layer.create_lora_weights = _wrap_create_lora_weights(layer.create_lora_weights)


def _wrap_update_metadata(stock: Callable[..., None], kernel: Kernel | None) -> Callable[..., None]:
    @wraps(stock)
    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        self.t2l_token_slots = map_tokens_to_slots(self.token_lora_indices, kernel)

    return update_metadata


def _wrap_add_lora_linear(stock: Callable[..., None]) -> Callable[..., None]:
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
        if self.t2l_token_slots is not None:
            y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
            add_lora(y, x, lora_a_stacked, lora_b_stacked, scale, self.t2l_token_slots)

    return add_lora_linear


def _wrap_create_lora_weights(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def create_lora_weights(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        self.lora_b_stacked = tuple(to_rank_major(b) for b in self.lora_b_stacked)

    return create_lora_weights
