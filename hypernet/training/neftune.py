"""Noise on the input embeddings in training, against overfitting (NEFTune, Jain et al. 2023).

The noise is uniform in [-1, 1], times alpha / sqrt(length * width). That of a row depends on (seed,
step, row) only, so it is the same for any number of processes and microbatches.
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
        packed: the rows. The length of a row is that of its longest example, so that packing adds
            no noise.
        keys: one seed per row.
        width: size of an embedding.
        alpha: size of the noise; 5 in the published runs.
    """
    rows = []
    for key, positions in zip(keys, packed.positions, strict=True):
        draw = torch.rand(len(positions), width, generator=torch.Generator().manual_seed(key))  # [T, width]
        rows.append((2 * draw - 1) * alpha / ((int(positions.max()) + 1) * width) ** 0.5)
    return torch.stack(rows)


@contextmanager
def noisy(embedding: nn.Module, added: Tensor | None) -> Iterator[None]:
    """Within it, `added` is added to the output of an embedding layer. None changes nothing."""
    if added is None:
        yield
        return
    handle = embedding.register_forward_hook(lambda _, __, out: out + added.to(out))
    try:
        yield
    finally:
        handle.remove()
