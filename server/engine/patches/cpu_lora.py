"""Replaces vLLM's LoRA operator on a CPU, which is wrong for rows without an adapter.

vLLM 0.32 marks a row without an adapter by the slot index -1, which torch's indexing reads as the
last slot. A base request that shares a step with adapted requests therefore gets the adapter of
another request. This operator masks such rows in every slot. It is also cheaper: for T tokens and S
slots of rank r,

    h = x A'                            [T, in] x [in, S r], all slots at once
    h = 0 in the slots of other tokens  [T, S r]
    y += h B'                           [T, S r] x [S r, out]

reads every adapter once per step. vLLM's operator copies the weights once per token. If few rows
have an adapter and the machine has a compiler, `native_kernel` computes each row with its own slot
instead. Both round as vLLM's operator does: float32 inside a product, the model's dtype between the
two products.
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

KernelLoader = Callable[[], Kernel | None]

MAX_NATIVE_ROWS = 256
"""Maximum number of adapted rows for the compiled kernel.

With more rows, matrix products are faster.
"""


@dataclass(frozen=True, slots=True)
class TokenSlotMapping:
    """The slot of each token of a step, in the forms that the operator needs."""

    token_slots: Tensor
    """Slot of each token, -1 for none. [tokens]"""
    adapted_tokens: Tensor
    """Tokens that have an adapter, sorted by slot. [n]"""
    adapted_slots: Tensor
    """Slot of each adapted token. [n]"""
    slot_range: slice
    """Range of the slots in use."""
    kernel: Kernel | None
    """The compiled kernel, if this step uses it."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """Masks by rank, shared by all layers of a step."""

    def mask(self, rank: int) -> Tensor:
        """True where h must be 0, because the token has another slot.

        [tokens, slots in the range * rank]
        """
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
    """Add the LoRA of each row's adapter to the output of a packed linear layer, in place.

    A small model calls this thousands of times per second, so every operation counts, Python's too.
    Each slice takes two products and a mask on cached views. The second product adds to y.

    Args:
        y: output of the layer, one slice after the other. [tokens, sum of outs]
        x: input of the layer. [tokens, in]
        a: for each slice, A of every slot. [slots, 1, rank, in]
        b: for each slice, B of every slot. [slots, 1, out, rank]
        scale: factor on B A x.
        rows: the slot of each row.
    """
    layer = layer_weights(a, b)
    if rows.kernel and rows.kernel.add_lora(
        y, x, layer.descriptor, rows.adapted_tokens, rows.adapted_slots, scale
    ):
        return
    for slice_ in layer.for_slots(rows.slot_range):
        h = functional.linear(x, slice_.down)  # [tokens, slots rank]
        h.masked_fill_(rows.mask(slice_.rank), 0)
        # For a row without an adapter h is 0, and adding 0 changes no bit of y.
        y.narrow(1, slice_.start, slice_.out).addmm_(h, slice_.up, alpha=scale)


@dataclass(frozen=True, slots=True)
class SliceWeights:
    """The weights of one slice of a packed layer, for a range of slots."""

    start: int
    """First output column of the slice."""
    out: int
    """Number of output columns."""
    rank: int
    down: Tensor
    """A of these slots. [slots rank, in]"""
    up: Tensor
    """B of these slots, transposed. [slots rank, out]"""

    def for_slots(self, slots: slice) -> SliceWeights:
        """The weights of a range of these slots."""
        rows = slice(slots.start * self.rank, slots.stop * self.rank)
        return SliceWeights(self.start, self.out, self.rank, self.down[rows], self.up[rows])


class LayerWeights:
    """The slices of a layer that have weights.

    Others, such as `k_proj` in many specs, are skipped.
    """

    def __init__(self, used: list[SliceWeights], empty: list[Tensor]) -> None:
        self.used = used
        self.descriptor = native_kernel.LayerDescriptor([(s.start, s.down, s.up, s.rank) for s in used])
        self._empty = [(b, b._version) for b in empty]
        self._last: tuple[slice, list[SliceWeights]] | None = None

    @property
    def is_current(self) -> bool:
        """Whether the skipped slices are still empty."""
        return all(b._version == seen for b, seen in self._empty)

    def for_slots(self, slots: slice) -> list[SliceWeights]:
        """The weights of a range of slots.

        Cached, because most steps use the same range as the last.
        """
        if self._last is None or self._last[0] != slots:
            self._last = slots, [slice_.for_slots(slots) for slice_ in self.used]
        return self._last[1]


def layer_weights(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> LayerWeights:
    """The views that a step needs of a layer. Cached on its first tensor."""
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
    if views:  # copies, for a B that is not rank-major, would become stale and are not cached
        a[0].t2l_layer_weights = found  # type: ignore[attr-defined]
    return found


def to_rank_major(b: Tensor) -> Tensor:
    """Change the memory layout of B [slots, 1, out, rank] to [slots, rank, out].

    Values and shape stay.
    """
    return b.transpose(2, 3).contiguous().transpose(2, 3)


def install(*, compile_kernel: bool) -> None:
    """Replace the operator in vLLM's classes. vLLM's own functions stay available as `__wrapped__`.

    Args:
        compile_kernel: compile the native kernel, if the machine has a C++ compiler.
    """
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    # Loaded in the worker only: the front end installs this patch, too, but computes nothing.
    load: KernelLoader = native_kernel.load_kernel if compile_kernel else lambda: None
    PunicaWrapperCPU.update_metadata = _wrap_update_metadata(PunicaWrapperCPU.update_metadata, load)
    PunicaWrapperCPU.add_lora_linear = _wrap_add_lora_linear(PunicaWrapperCPU.add_lora_linear)
    for layer in (BaseLinearLayerWithLoRA, MergedColumnParallelLinearWithLoRA):
        layer.create_lora_weights = _wrap_create_lora_weights(layer.create_lora_weights, load)


def _wrap_update_metadata(original: Callable[..., None], load: KernelLoader) -> Callable[..., None]:
    @wraps(original)
    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.t2l_token_slots = map_tokens_to_slots(self.token_lora_indices, load())

    return update_metadata


def _wrap_add_lora_linear(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def add_lora_linear(
        self: Any,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],  # equal to the sizes of B on every CPU layer
        **_: Any,
    ) -> None:
        if self.t2l_token_slots is not None:
            y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
            add_lora(y, x, lora_a_stacked, lora_b_stacked, scale, self.t2l_token_slots)

    return add_lora_linear


def _wrap_create_lora_weights(original: Callable[..., None], load: KernelLoader) -> Callable[..., None]:
    @wraps(original)
    def create_lora_weights(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.lora_b_stacked = tuple(to_rank_major(b) for b in self.lora_b_stacked)
        load()  # compiles at the start instead of in the first step

    return create_lora_weights
