"""Noise on the input embeddings while training (NEFTune, Jain et al. 2023): fine-tuning overfits less.

Uniform in [-1, 1] times alpha / sqrt(length * width). The noise of a row is drawn from
(seed, step, row) alone, so it is the same however the batch is shared out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hypernet.packing import PackedBatch


def noise(packed: PackedBatch, keys: Sequence[int], width: int, alpha: float) -> Tensor:
    """Noise for N rows of T tokens. [N, T, width].

    Args:
        packed: the rows. A row's length is that of its longest example: packing is not to add noise.
        keys: a seed per row.
        width: of an embedding.
        alpha: 5 in the published runs.
    """
    rows = []
    for key, positions in zip(keys, packed.positions, strict=True):
        draw = torch.rand(len(positions), width, generator=torch.Generator().manual_seed(key))  # [T, width]
        rows.append((2 * draw - 1) * alpha / ((int(positions.max()) + 1) * width) ** 0.5)
    return torch.stack(rows)


@contextmanager
def noisy(embedding: nn.Module, added: Tensor | None) -> Iterator[None]:
    """Within it, what an embedding layer gives has `added` added. None changes nothing."""
    if added is None:
        yield
        return
    handle = embedding.register_forward_hook(lambda _, __, out: out + added.to(out))
    try:
        yield
    finally:
        handle.remove()
