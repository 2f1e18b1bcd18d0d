"""An adapter as the server keeps it: the weights, and what is worth remembering about them."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.lora import InvalidLoraError, LoraWeights
from server.errors import AdapterRejectedError


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What is known about an adapter, its weights aside; fields as in `Adapter`."""

    id: str
    description: str
    created_us: int
    spec: LoraSpec

    @property
    def nbytes(self) -> int:
        """Bytes of its bf16 weights."""
        return 2 * self.spec.num_parameters


@dataclass(frozen=True, slots=True)
class Adapter:
    """One generated adapter.

    Attributes:
        id: content hash, 32 hex characters (`key.AdapterKeyer`).
        description: the normalised task description it was written for.
        created_us: when it was written, microseconds since the epoch. Listings are ordered by it.
        weights: views into one flat bf16 buffer, so that storing it is one copy.
    """

    id: str
    description: str
    created_us: int
    weights: LoraWeights = field(repr=False)

    @property
    def spec(self) -> LoraSpec:
        """Shapes and scale."""
        return self.weights.spec

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    @property
    def info(self) -> AdapterInfo:
        """Everything but the weights."""
        return AdapterInfo(self.id, self.description, self.created_us, self.spec)

    @classmethod
    def seal(cls, adapter_id: str, description: str, created_us: int, weights: LoraWeights) -> Adapter:
        """Check freshly written weights and move them into one flat bf16 buffer. Milliseconds of work.

        bf16 is what the engine computes in; checking after the cast also catches
        numbers that the cast made infinite.

        Raises:
            AdapterRejectedError: the hypernetwork wrote something that no engine may see.
        """
        try:
            cast = weights.to(torch.bfloat16)
            cast.validate()
            sealed = LoraWeights.unflatten(weights.spec, _pages(weights.spec))
            for name in sealed.a:
                sealed.a[name].copy_(cast.a[name])
                sealed.b[name].copy_(cast.b[name])
        except InvalidLoraError as error:
            raise AdapterRejectedError(f"the hypernetwork wrote an unusable adapter: {error}") from error
        return cls(adapter_id, description, created_us, sealed)


def _pages(spec: LoraSpec) -> Tensor:
    """Memory for one adapter that goes back to the system with it. [num_parameters]

    Between a batch's temporaries on the heap it would leave holes: a third more memory was seen.
    """
    size = 2 * spec.num_parameters
    if sys.platform == "linux":  # all pages in one call, not by hundreds of faults
        pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    else:
        pages = mmap.mmap(-1, size)
    return torch.frombuffer(pages, dtype=torch.bfloat16)
