"""An adapter as the server keeps it: the weights, and what is worth remembering about them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.lora import InvalidLoraError, LoraWeights
from server.adapters.buffers import allocate_buffer
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
    def from_weights(
        cls,
        adapter_id: str,
        description: str,
        created_us: int,
        weights: LoraWeights,
        buffer: Tensor | None = None,
    ) -> Adapter:
        """Check freshly written weights and move them into one flat bf16 buffer. A millisecond of work.

        bf16 is what the engine computes in; checking after the cast also catches
        numbers that the cast made infinite.

        Args:
            adapter_id, description, created_us: as the attributes.
            weights: of any dtype.
            buffer: where to keep them, [num_parameters] of bf16 that nobody else uses; None: from `pages`.

        Raises:
            AdapterRejectedError: the hypernetwork wrote something that no engine may see.
        """
        try:
            cast = weights.to(torch.bfloat16)
            cast.validate()
            buffer = allocate_buffer(weights.spec) if buffer is None else buffer
            flat = LoraWeights.unflatten(weights.spec, buffer)
            for name in flat.a:
                flat.a[name].copy_(cast.a[name])
                flat.b[name].copy_(cast.b[name])
        except InvalidLoraError as error:
            raise AdapterRejectedError(f"the hypernetwork wrote an unusable adapter: {error}") from error
        return cls(adapter_id, description, created_us, flat)
