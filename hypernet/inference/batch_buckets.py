"""a network compiled for a few batch sizes: on a GPU one description costs launches, not arithmetic.

A forward of the hypernetwork is some eighty small kernels, and a GPU waits for each to be sent. The
compiler fuses them, once for every shape, so batches are filled up to one of a few sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from hypernet.lora import LoraBatch

log = logging.getLogger(__name__)


ForwardFn = Callable[[Tensor], LoraBatch]
"""Embeddings [n, e] -> n adapters; each row's adapter depends on that row only."""


def compile_buckets(forward: ForwardFn, example: Tensor, sizes: tuple[int, ...]) -> ForwardFn:
    """A network compiled for every size now, so that no request waits for it; as it is, where that fails.

    Args:
        forward: what writes adapters.
        example: [1, e] on its device.
        sizes: of batches, ascending.
    """
    fixed = BucketedForward(torch.compile(forward, dynamic=False), sizes)
    try:
        for size in sizes:
            fixed(example.expand(size, -1))
    except Exception:  # the compiler's own, of many kinds; none of them keeps a server from serving
        log.warning("the hypernetwork runs uncompiled, as it could not be compiled", exc_info=True)
        return forward
    return fixed


class BucketedForward:
    """Writes as what it is given, asking it for batches of these sizes only."""

    def __init__(self, forward: ForwardFn, sizes: tuple[int, ...]) -> None:
        self._forward = forward
        self._sizes = sizes

    @torch.inference_mode()
    def __call__(self, embeddings: Tensor) -> LoraBatch:
        """[n, e] -> n adapters."""
        parts = [self._padded(part) for part in torch.split(embeddings, self._sizes[-1])]
        if len(parts) == 1:
            return parts[0]
        return LoraBatch(
            {m: torch.cat([part.a[m] for part in parts]) for m in parts[0].a},
            {m: torch.cat([part.b[m] for part in parts]) for m in parts[0].b},
        )

    def _padded(self, embeddings: Tensor) -> LoraBatch:
        """A part no larger than the largest size, filled up with zeros to the next one."""
        count = len(embeddings)
        size = next(size for size in self._sizes if size >= count)
        written = self._forward(pad(embeddings, (0, 0, 0, size - count)))
        return written.map(lambda t: t[:count])
