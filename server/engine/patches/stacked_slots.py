"""Loads an adapter into its slot with two copies per module, where vLLM makes ten per layer.

vLLM gives each layer slot tensors of its own and fills them layer by layer. That takes hundreds of
small copies while all streams wait; vLLM also formats the first adapter's weights as text to find
their device. Here the slot tensors of one module are views of one tensor over all layers, which is
allocated before the engine runs. The layers of an adapter are stacked, too, so a module needs one
copy of A and one of B, each a single kernel on a GPU. Tensor parallelism and layers of different
shapes keep vLLM's own way.
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
    """The position of a module in vLLM."""

    layer: str
    """Name of the layer without its number. A layer may pack several modules."""
    slice: int
    """Index of the module in the layer."""


@dataclass(frozen=True, slots=True)
class StackedSlots:
    """The slots of one module in all layers."""

    a: Tensor
    """[layers, slots, 1, rank, in]"""
    b: Tensor
    """[layers, slots, 1, out, rank], in the memory layout of the layers."""
    filled: set[int] = field(default_factory=set)
    """Slots that may contain weights."""

    def write(self, slot: int, a: Tensor, b: Tensor, scaling: float) -> None:
        """Write A [layers, r, in] and scaling * B [layers, out, r] to a slot.
        r is at most the slot's rank.
        """
        rank = a.shape[1]
        self.filled.add(slot)
        self.a[:, slot, 0, :rank].copy_(a)
        torch.mul(b, scaling, out=self.b[:, slot, 0, :, :rank])
        if rank < self.a.shape[3]:
            self.a[:, slot, 0, rank:] = 0
            self.b[:, slot, 0, :, rank:] = 0

    def clear(self, slot: int) -> None:
        """Clear a slot.

        An empty slot is not written to, because `cpu_lora` rechecks slices after a write.
        """
        if slot in self.filled:
            self.a[:, slot] = 0
            self.b[:, slot] = 0
            self.filled.remove(slot)


def stack_layers(modules: dict[str, Any]) -> dict[SlotLocation, StackedSlots]:
    """Stack the slot tensors of equal layers. The layers keep views with the same contents.

    Args:
        modules: vLLM's LoRA layers by name.

    Returns:
        The stacked slots. Layers that do not qualify are left out.
    """
    groups: dict[str, dict[int, Any]] = defaultdict(dict)
    for name, module in modules.items():
        numbers = re.findall(r"\.(\d+)\.", name)
        if len(numbers) == 1 and isinstance(getattr(module, "lora_a_stacked", None), tuple):
            groups[strip_layer_index(name)][int(numbers[0])] = module
    stacks: dict[SlotLocation, StackedSlots] = {}
    for name, layers in groups.items():
        ordered = [layers[n] for n in sorted(layers)]
        if _have_equal_slots(ordered) and sorted(layers) == list(range(len(layers))):
            stacked = [_stack(ordered, i) for i in range(len(ordered[0].lora_a_stacked))]
            for n, module in enumerate(ordered):
                module.lora_a_stacked = tuple(stack.a[n] for stack in stacked)
                module.lora_b_stacked = tuple(stack.b[n] for stack in stacked)
            stacks |= {SlotLocation(name, i): stack for i, stack in enumerate(stacked)}
    return stacks


def strip_layer_index(name: str) -> str:
    """`model.layers.3.mlp.up_proj` -> `model.layers.*.mlp.up_proj`."""
    return re.sub(r"\.\d+\.", ".*.", name)


def _have_equal_slots(layers: list[Any]) -> bool:
    def shapes(layer: Any) -> Any:
        slots = (*layer.lora_a_stacked, *layer.lora_b_stacked)
        return layer.tp_size, [(t.shape, t.stride(), t.dtype, t.device) for t in slots]

    return layers[0].tp_size == 1 and all(shapes(layer) == shapes(layers[0]) for layer in layers)


def _stack(layers: list[Any], slice_: int) -> StackedSlots:
    a = torch.stack([layer.lora_a_stacked[slice_] for layer in layers])
    b = [layer.lora_b_stacked[slice_] for layer in layers]
    if b[0].is_contiguous():
        return StackedSlots(a, torch.stack(b))
    rank_major = torch.stack([t.transpose(2, 3) for t in b])  # [layers, slots, 1, rank, out], as in `cpu_lora`
    return StackedSlots(a, rank_major.transpose(3, 4))


def locate_modules(
    spec: LoraSpec,
    names: Callable[[str], str],
    packed: dict[str, list[str]],
    stacks: dict[SlotLocation, StackedSlots],
) -> dict[str, SlotLocation] | None:
    """The location of each module of a spec. None if a module has none.

    Args:
        spec: LoRA spec of the adapter.
        names: maps a module's path to vLLM's name of it in layer 0.
        packed: names of packed layers -> names of the modules in them.
        stacks: result of `stack_layers`.
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
    """Make vLLM's adapter manager stack its slots, and load adapters into them."""
    from vllm.lora.model_manager import LoRAModelManager as Manager

    Manager._create_lora_modules = _wrap_create_lora_modules(Manager._create_lora_modules)
    Manager._add_adapter = _wrap_add_adapter(Manager._add_adapter)
    Manager.activate_adapter = _wrap_activate_adapter(Manager.activate_adapter)


class StackedAdapter:
    """The weights of an adapter and their locations,
    instead of the layers of vLLM's `LoRAModel`.
    """

    def __init__(self, weights: LoraWeights, locations: dict[str, SlotLocation]) -> None:
        self.weights = weights
        self.locations = locations

    def fill(self, stacks: dict[SlotLocation, StackedSlots], slot: int) -> None:
        """Replace the contents of a slot by this adapter."""
        weights = self.weights
        for name, location in self.locations.items():
            stacks[location].write(slot, weights.a[name], weights.b[name], weights.spec.scaling)
        for location in stacks.keys() - self.locations.values():
            stacks[location].clear(slot)


def _wrap_create_lora_modules(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def _create_lora_modules(self: Any) -> None:
        original(self)
        self.t2l_stacks = stack_layers(self.modules)

    return _create_lora_modules


def _wrap_add_adapter(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def _add_adapter(self: Any, lora: Any) -> None:
        if hasattr(lora, "t2l_stacked_adapter"):
            self._registered_adapters[lora.id] = lora  # vLLM would merge packed layers and pin memory
        else:
            original(self, lora)

    return _add_adapter


def _wrap_activate_adapter(original: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(original)
    def activate_adapter(self: Any, lora_id: int) -> bool:
        adapter = self._registered_adapters[lora_id]
        stacked: StackedAdapter | None = getattr(adapter, "t2l_stacked_adapter", None)
        if stacked is None or lora_id in self._active_adapters:
            new = original(self, lora_id)
            if new:
                for stack in self.t2l_stacks.values():
                    stack.filled.add(self.lora_index_to_id.index(lora_id))
            return new
        if None not in self.lora_index_to_id:
            raise ValueError("no LoRA slot is free: evict an adapter first")
        slot = self.lora_index_to_id.index(None)
        stacked.fill(self.t2l_stacks, slot)
        self._active_adapters[lora_id] = None
        self.lora_index_to_id[slot] = lora_id
        return True

    return activate_adapter
