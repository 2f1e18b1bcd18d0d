"""Memory for adapters: pages of their own, and the next adapter's fetched before it is asked for."""

from __future__ import annotations

import mmap
from collections import deque
from contextlib import suppress

import torch
from torch import Tensor

from hypernet.config import LoraSpec


def allocate_buffer(spec: LoraSpec) -> Tensor:
    """Memory for one adapter that goes back to the system with it, bf16 zeros. [num_parameters]

    Between a batch's temporaries on the heap it would leave holes: a third more memory was seen.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = torch.frombuffer(mmap.mmap(-1, 2 * spec.num_parameters, flags), dtype=torch.bfloat16)
    return memory.zero_()  # touches every page, without Python's lock


class BufferPool:
    """Pages for the next adapter: on an idle machine the system takes 1.5 ms to find them.

    Its methods may be called from any thread.
    """

    def __init__(self, spec: LoraSpec) -> None:
        self._spec = spec
        self._ready: deque[Tensor] = deque()

    def fill(self) -> None:
        """Have one adapter's pages ready. A machine that has none left tells whoever takes them."""
        if not self._ready:
            with suppress(OSError):
                self._ready.append(allocate_buffer(self._spec))

    def acquire(self) -> Tensor:
        """Pages that nobody else gets: those that are ready, or new ones."""
        try:
            return self._ready.popleft()
        except IndexError:
            return allocate_buffer(self._spec)
