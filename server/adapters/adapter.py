"""An adapter as the server caches it: weights and metadata."""

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
    """An adapter's metadata. The fields are those of `Adapter`."""

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
        description: the normalised task description.
        created_us: time of generation in microseconds since the epoch. Listings are sorted by it.
        weights: views into one flat bf16 buffer, so that one copy stores them.
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
        """The metadata."""
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
        """Validate generated weights and copy them into one flat bf16 buffer. Takes about a
        millisecond.

        The weights are validated as bf16, so that values that only overflow in bf16 are found.

        Args:
            adapter_id, description, created_us: see the attributes.
            weights: weights of any dtype.
            buffer: the memory to copy to. [num_parameters], bf16. None: `allocate_buffer`.

        Raises:
            AdapterRejectedError: the weights contain NaN, infinite or excessive values.
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
            raise AdapterRejectedError(f"the hypernetwork generated an unusable adapter: {error}") from error
        return cls(adapter_id, description, created_us, flat)
