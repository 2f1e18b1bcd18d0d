"""One copy per module puts an adapter into its slot, where vLLM makes ten for every layer.

vLLM gives each layer its own slot tensors and fills them layer by layer: some
hundreds of small copies while every stream waits, and on top of them it prints
the first adapter's weights to learn their device. Here the slot tensors of one
module are views into one tensor over all layers, made before anything runs, so
that an adapter, whose layers are stacked too, goes in with two copies a module:
on a GPU two kernels. What does not fit this picture (tensor parallelism, layers
of unlike shapes) keeps vLLM's way.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights


class SlotLocation(NamedTuple):
    """Where a module lives in vLLM."""

    layer: str
    """Name of the layer, which may pack several modules, without its number."""
    slice: int
    """Which of those modules."""


@dataclass(frozen=True, slots=True)
class StackedSlots:
    """The slots of one module in all layers."""

    a: Tensor
    """[layers, slots, 1, rank, in]"""
    b: Tensor
    """[layers, slots, 1, out, rank], in whatever order of memory the layers had it."""
    filled: set[int] = field(default_factory=set)
    """Slots that may hold something."""

    def write(self, slot: int, a: Tensor, b: Tensor, scaling: float) -> None:
        """Fill a slot with A [layers, r, in] and scaling * B [layers, out, r], r at most the slot's rank."""
        rank = a.shape[1]
        self.filled.add(slot)
        self.a[:, slot, 0, :rank].copy_(a)
        torch.mul(b, scaling, out=self.b[:, slot, 0, :, :rank])
        if rank < self.a.shape[3]:
            self.a[:, slot, 0, rank:] = 0
            self.b[:, slot, 0, :, rank:] = 0

    def clear(self, slot: int) -> None:
        """Empty a slot; one that is empty is not written to, as the kernel looks again after a write."""
        if slot in self.filled:
            self.a[:, slot] = 0
            self.b[:, slot] = 0
            self.filled.remove(slot)


def stack_layers(modules: dict[str, Any]) -> dict[SlotLocation, StackedSlots]:
    """Move like layers' slot tensors side by side. The layers keep views, with the same contents.

    Args:
        modules: vLLM's LoRA layers by name.
    """
    groups: dict[str, dict[int, Any]] = defaultdict(dict)
    for name, module in modules.items():
        numbers = re.findall(r"\.(\d+)\.", name)
        if len(numbers) == 1 and isinstance(getattr(module, "lora_a_stacked", None), tuple):
            groups[strip_layer_index(name)][int(numbers[0])] = module
    stacks: dict[SlotLocation, StackedSlots] = {}
    for name, layers in groups.items():
        ordered = [layers[n] for n in sorted(layers)]
        if _identical(ordered) and sorted(layers) == list(range(len(layers))):
            found = [_stack(ordered, i) for i in range(len(ordered[0].lora_a_stacked))]
            for n, module in enumerate(ordered):
                module.lora_a_stacked = tuple(stack.a[n] for stack in found)
                module.lora_b_stacked = tuple(stack.b[n] for stack in found)
            stacks |= {SlotLocation(name, i): stack for i, stack in enumerate(found)}
    return stacks


def strip_layer_index(name: str) -> str:
    """`model.layers.3.mlp.up_proj` -> `model.layers.*.mlp.up_proj`."""
    return re.sub(r"\.\d+\.", ".*.", name)


def _identical(layers: list[Any]) -> bool:
    def shapes(layer: Any) -> Any:
        slots = (*layer.lora_a_stacked, *layer.lora_b_stacked)
        return layer.tp_size, [(t.shape, t.stride(), t.dtype, t.device) for t in slots]

    return layers[0].tp_size == 1 and all(shapes(layer) == shapes(layers[0]) for layer in layers)


def _stack(layers: list[Any], slice_: int) -> StackedSlots:
    a = torch.stack([layer.lora_a_stacked[slice_] for layer in layers])
    b = [layer.lora_b_stacked[slice_] for layer in layers]
    if b[0].is_contiguous():
        return StackedSlots(a, torch.stack(b))
    return StackedSlots(
        a, torch.stack([t.transpose(2, 3) for t in b]).transpose(3, 4)
    )  # as `cpu_lora.to_rank_major` has it


def locate_modules(
    spec: LoraSpec,
    names: Callable[[str], str],
    packed: dict[str, list[str]],
    stacks: dict[SlotLocation, StackedSlots],
) -> dict[str, SlotLocation] | None:
    """Where each module of a spec goes; None if one has no location.

    Args:
        spec: of the adapter.
        names: a module's path -> vLLM's name of it in layer 0.
        packed: vLLM's names of packed layers -> their slices' names.
        stacks: as `stack_layers` made them.
    """
    slices = {
        module: SlotLocation(strip_layer_index(layer), i)
        for layer, modules in packed.items()
        for i, module in enumerate(modules)
    }
    found: dict[str, SlotLocation] = {}
    for module in spec.modules:
        name = names(module.path)
        location = slices.get(name, SlotLocation(strip_layer_index(name), 0))
        stack = stacks.get(location)
        wanted = (spec.num_layers, module.in_features, module.out_features)
        if stack is None or (stack.a.shape[0], stack.a.shape[4], stack.b.shape[3]) != wanted:
            return None
        found[module.name] = location
    return found


def install() -> None:
    """Have vLLM's adapter manager stack its layers, and fill slots from adapters that know their locations."""
    from vllm.lora.model_manager import LoRAModelManager as Manager

    Manager._create_lora_modules = _wrap_create_lora_modules(Manager._create_lora_modules)
    Manager._add_adapter = _wrap_add_adapter(Manager._add_adapter)
    Manager.activate_adapter = _wrap_activate_adapter(Manager.activate_adapter)


class StackedAdapter:
    """What a `LoRAModel` of ours carries instead of layers: its weights and where they go."""

    def __init__(self, weights: LoraWeights, locations: dict[str, SlotLocation]) -> None:
        self.weights = weights
        self.locations = locations

    def fill(self, stacks: dict[SlotLocation, StackedSlots], slot: int) -> None:
        """Make a slot this adapter's, whatever was in it."""
        weights = self.weights
        for name, location in self.locations.items():
            stacks[location].write(slot, weights.a[name], weights.b[name], weights.spec.scaling)
        for location in stacks.keys() - self.locations.values():
            stacks[location].clear(slot)


def _wrap_create_lora_modules(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def _create_lora_modules(self: Any) -> None:
        stock(self)
        self.t2l_stacks = stack_layers(self.modules)

    return _create_lora_modules


def _wrap_add_adapter(stock: Callable[..., None]) -> Callable[..., None]:
    @wraps(stock)
    def _add_adapter(self: Any, lora: Any) -> None:
        if hasattr(lora, "t2l_stacked_adapter"):
            self._registered_adapters[lora.id] = lora  # nothing to merge or pin
        else:
            stock(self, lora)

    return _add_adapter


def _wrap_activate_adapter(stock: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(stock)
    def activate_adapter(self: Any, lora_id: int) -> bool:
        adapter = self._registered_adapters[lora_id]
        stacked: StackedAdapter | None = getattr(adapter, "t2l_stacked_adapter", None)
        if stacked is None or lora_id in self._active_adapters:
            new = stock(self, lora_id)
            if new:
                for stack in self.t2l_stacks.values():
                    stack.filled.add(self.lora_index_to_id.index(lora_id))
            return new
        if None not in self.lora_index_to_id:
            raise ValueError("no slot is free")
        slot = self.lora_index_to_id.index(None)
        stacked.fill(self.t2l_stacks, slot)
        self._active_adapters[lora_id] = None
        self.lora_index_to_id[slot] = lora_id
        return True

    return activate_adapter
