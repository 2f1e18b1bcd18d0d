"""LoRA weights as values: one adapter or a batch of them, flattened, merged and validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.errors import T2lError


class InvalidLoraError(T2lError):
    """LoRA weights that must not reach a model: wrong shape, wrong dtype, not finite,
    or too large.
    """


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """One adapter. Layers are stacked, so a module is two tensors at any depth.

    Attributes:
        spec: shapes and scale.
        a: module name -> A, [layers, rank, in].
        b: module name -> B, [layers, out, rank]. The adapted layer adds scaling * B A x.
    """

    spec: LoraSpec
    a: Mapping[str, Tensor]
    b: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(t.nbytes for t in (*self.a.values(), *self.b.values()))

    def to(self, dtype: torch.dtype, device: str | None = None) -> LoraWeights:
        """The adapter in another dtype, and on another device if one is given."""
        return LoraWeights(
            self.spec,
            {name: t.to(device=device, dtype=dtype) for name, t in self.a.items()},
            {name: t.to(device=device, dtype=dtype) for name, t in self.b.items()},
        )

    def flatten(self) -> Tensor:
        """All weights in one contiguous vector: for each module of the spec, A then B.
        [num_parameters].

        For an adapter from `unflatten` the result shares memory with its tensors and must not be
        changed.
        """
        parts = [t for m in self.spec.modules for t in (self.a[m.name], self.b[m.name])]
        # With gradients, a view would carry that of the first tensor only.
        if _are_adjacent(parts) and not parts[0].requires_grad:
            return parts[0].as_strided((self.spec.num_parameters,), (1,))
        return torch.cat([t.reshape(-1) for t in parts])

    @classmethod
    def unflatten(cls, spec: LoraSpec, flat: Tensor) -> LoraWeights:
        """An adapter whose tensors are views into a vector from `flatten`.

        Raises:
            InvalidLoraError: the vector does not have the spec's length.
        """
        if flat.shape != (spec.num_parameters,):
            raise InvalidLoraError(
                f"flat adapter has shape {tuple(flat.shape)}, the LoRA spec needs ({spec.num_parameters},)"
            )
        a: dict[str, Tensor] = {}
        b: dict[str, Tensor] = {}
        start = 0
        for m in spec.modules:
            for out, shape in (
                (a, (spec.num_layers, spec.rank, m.in_features)),
                (b, (spec.num_layers, m.out_features, spec.rank)),
            ):
                size = shape[0] * shape[1] * shape[2]
                out[m.name] = flat[start : start + size].view(shape)
                start += size
        return cls(spec, a, b)

    def validate(self, max_abs: float = 1e3) -> None:
        """Check names, shapes, dtype and values before the adapter reaches an engine.

        Args:
            max_abs: largest allowed absolute value.

        Raises:
            InvalidLoraError: a tensor is wrong; the message names it.
        """
        spec = self.spec
        names = {m.name for m in spec.modules}
        if set(self.a) != names or set(self.b) != names:
            raise InvalidLoraError(f"modules are {sorted(self.a)}, the LoRA spec needs {sorted(names)}")
        for m in spec.modules:
            for kind, tensor, shape in (
                ("A", self.a[m.name], (spec.num_layers, spec.rank, m.in_features)),
                ("B", self.b[m.name], (spec.num_layers, m.out_features, spec.rank)),
            ):
                if tuple(tensor.shape) != shape:
                    raise InvalidLoraError(f"{m.name}.{kind} has shape {tuple(tensor.shape)}, needs {shape}")
                if not tensor.is_floating_point():
                    raise InvalidLoraError(f"{m.name}.{kind} has dtype {tensor.dtype}, needs floating point")
                low, high = torch.aminmax(tensor.detach())
                if not (-max_abs <= low.item() and high.item() <= max_abs):  # also true for NaN
                    raise InvalidLoraError(f"{m.name}.{kind} has values that are not finite or above {max_abs}")

    def delta(self, module: str) -> Tensor:
        """The update of a module's base weights: scaling * B A. [layers, out, in]."""
        return self.spec.scaling * (self.b[module] @ self.a[module])


def _are_adjacent(parts: Sequence[Tensor]) -> bool:
    """Whether the tensors lie directly one after another in the same memory."""
    memory, at = parts[0].untyped_storage().data_ptr(), parts[0].storage_offset()
    for t in parts:
        if t.untyped_storage().data_ptr() != memory or t.storage_offset() != at or not t.is_contiguous():
            return False
        at += t.numel()
    return True


class LoraBatch(NamedTuple):
    """N adapters of one spec: module name -> A [N, L, r, in] and B [N, L, out, r]."""

    a: dict[str, Tensor]
    b: dict[str, Tensor]

    def split(self, spec: LoraSpec) -> list[LoraWeights]:
        """The N adapters, as views."""
        count = next(iter(self.a.values())).shape[0]
        return [
            LoraWeights(spec, {m: t[i] for m, t in self.a.items()}, {m: t[i] for m, t in self.b.items()})
            for i in range(count)
        ]

    @classmethod
    def stack(cls, adapters: Sequence[LoraWeights]) -> LoraBatch:
        """A batch of adapters of one spec."""
        names = adapters[0].a
        return cls(
            {m: torch.stack([adapter.a[m] for adapter in adapters]) for m in names},
            {m: torch.stack([adapter.b[m] for adapter in adapters]) for m in names},
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> LoraBatch:
        """The batch with a function applied to every tensor."""
        return LoraBatch({m: change(t) for m, t in self.a.items()}, {m: change(t) for m, t in self.b.items()})

    def take(self, index: list[int]) -> LoraBatch:
        """The adapters at these indices, which may repeat."""
        places = torch.tensor(index, device=next(iter(self.a.values())).device)
        return self.map(lambda t: t.index_select(0, places))
