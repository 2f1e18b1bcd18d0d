"""A network compiled for a few batch sizes.

A forward pass of the hypernetwork is about eighty small kernels. On a GPU one description takes the
time of their launches, not of their arithmetic. torch.compile fuses the kernels, once for every
shape, so batches are padded to one of a few sizes.
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
"""Embeddings [n, e] -> n adapters. Each adapter depends on its own row only."""


def compile_buckets(forward: ForwardFn, example: Tensor, sizes: tuple[int, ...]) -> ForwardFn:
    """Compile a network for every batch size at once, so that no request waits for the compiler.

    Args:
        forward: the network.
        example: an embedding [1, e] on the network's device.
        sizes: batch sizes, ascending.

    Returns:
        The compiled network; the network itself, with a warning in the log, where compilation
        fails.
    """
    fixed = BucketedForward(torch.compile(forward, dynamic=False), sizes)
    try:
        for size in sizes:
            fixed(example.expand(size, -1))
    except Exception:  # compilers raise many kinds, and a server can do without compilation
        log.warning("the hypernetwork could not be compiled and runs uncompiled", exc_info=True)
        return forward
    return fixed


class BucketedForward:
    """Calls a network with batches of a few sizes only. Results are those of the network itself."""

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
        """Adapters of at most the largest size of embeddings,
        padded with zeros to the next size.
        """
        count = len(embeddings)
        size = next(size for size in self._sizes if size >= count)
        adapters = self._forward(pad(embeddings, (0, 0, 0, size - count)))
        return adapters.map(lambda t: t[:count])
