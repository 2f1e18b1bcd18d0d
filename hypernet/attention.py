"""Attention as each family of base models defines it: soft-capping, and sliding windows in packed
rows.

transformers builds these masks itself only for rows that hold one text each. It takes a mask of
four axes as final and applies no sliding window to it, so this module makes the mask of every layer
type.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hypernet.base_model import BaseModelError

FULL, SLIDING = "full_attention", "sliding_attention"
"""Layer types, as `layer_types` in a transformers config names them."""


def attention_implementation(config: Any, device: str) -> Literal["eager", "sdpa"]:
    """The faster implementation of those that compute the model's attention as defined.

    Args:
        config: the model's transformers config.
        device: a torch device.
    """
    # The fused kernel (sdpa) has no soft-capping: Gemma 2 would compute other scores without a
    # warning.
    if getattr(config, "attn_logit_softcapping", None):
        return "eager"
    # On a CPU the fused kernel's backward pass is slower than plain matrix products.
    return "eager" if torch.device(device).type == "cpu" else "sdpa"


def attention_masks(
    config: Any, mask: Tensor, positions: Tensor, key_positions: Tensor, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """A mask as the decoder of a transformers model takes it: one tensor, or one per layer type.

    Args:
        config: the model's transformers config.
        mask: [N, 1, T, T'], True where a query may attend to a key, sliding windows not yet
            applied.
        positions: [N, T], position of each query in its own text.
        key_positions: [N, T'], position of each key in its own text.
        dtype: the model's dtype.

    Returns:
        Masks of [N, 1, T, T'] that are added to the attention scores.

    Raises:
        BaseModelError: the model has a layer type other than full and sliding attention.
    """
    window: int | None = getattr(config, "sliding_window", None)
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    if layer_types is None:  # all layers are alike (Llama, Mistral)
        return _additive(mask if window is None else _within(mask, window, positions, key_positions), dtype)
    masks = {}
    for layer_type in dict.fromkeys(layer_types):
        if layer_type == FULL:
            masks[layer_type] = _additive(mask, dtype)
        elif layer_type == SLIDING and window is not None:
            masks[layer_type] = _additive(_within(mask, window, positions, key_positions), dtype)
        else:
            raise BaseModelError(
                f"layer_types: {layer_type!r} is not supported, only {FULL!r} and {SLIDING!r} are"
            )
    return masks


def _within(mask: Tensor, window: int, positions: Tensor, key_positions: Tensor) -> Tensor:
    """Keep the keys that lie fewer than `window` positions before the query. [N, 1, T, T']."""
    distance = positions[:, :, None] - key_positions[:, None, :]  # [N, T, T']
    return mask & (distance < window)[:, None]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query may attend, the dtype's minimum elsewhere."""
    return (~mask).to(dtype) * torch.finfo(dtype).min
