"""Stacked slots have the contents that vLLM's own loop writes,
and other layers are left to vLLM.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypernet.config import LoraSpec, ModuleShape
from hypernet.lora import LoraWeights
from server.engine.patches import cpu_lora, stacked_slots

pytest.importorskip("vllm")

LAYERS, SLOTS, RANK = 3, 2, 8
Q, K, V = 6, 4, 4


def spec(rank: int = RANK, modules: tuple[str, ...] = ("q_proj", "v_proj"), layers: int = LAYERS) -> LoraSpec:
    outs = {"q_proj": Q, "k_proj": K, "v_proj": V}
    shapes = tuple(ModuleShape(path=f"self_attn.{m}", in_features=5, out_features=outs[m]) for m in modules)
    return LoraSpec(rank=rank, alpha=2 * rank, num_layers=layers, modules=shapes)


def layer(pack: bool, tp_size: int = 1, size: int = 5) -> Any:
    """A packed layer of vLLM with its own method to fill a slot."""
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA

    class Layer(MergedColumnParallelLinearWithLoRA):
        reset_lora = BaseLinearLayerWithLoRA.reset_lora

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.tp_size, self.n_slices = tp_size, 3
            self.lora_a_stacked = tuple(torch.zeros(SLOTS, 1, RANK, size) for _ in range(3))
            b = (torch.zeros(SLOTS, 1, out, RANK) for out in (Q, K, V))
            self.lora_b_stacked = tuple(cpu_lora.to_rank_major(t) if pack else t for t in b)

    return Layer()


def model(pack: bool = True, **fields: Any) -> dict[str, Any]:
    return {f"model.layers.{i}.self_attn.qkv_proj": layer(pack, **fields) for i in range(LAYERS)}


PACKED = {
    f"model.layers.{i}.self_attn.qkv_proj": [f"model.layers.{i}.self_attn.{m}_proj" for m in "qkv"]
    for i in range(LAYERS)
}


def name(path: str) -> str:
    return f"model.layers.0.{path}"


def weights(seed: int, of: LoraSpec) -> LoraWeights:
    flat = torch.randn(of.num_parameters, generator=torch.Generator().manual_seed(seed))
    return LoraWeights.unflatten(of, flat)


def fill_as_vllm(modules: dict[str, Any], slot: int, w: LoraWeights) -> None:
    for i, module in enumerate(modules.values()):
        a = [w.a[f"{m}_proj"][i] if f"{m}_proj" in w.a else None for m in "qkv"]
        b = [w.b[f"{m}_proj"][i] * w.spec.scaling if f"{m}_proj" in w.b else None for m in "qkv"]
        module.set_lora(slot, a, b)


@settings(deadline=None)
@given(
    fills=st.lists(
        st.tuples(
            st.integers(0, SLOTS - 1),
            st.sampled_from([1, 4, RANK]),
            st.sampled_from([("q_proj", "v_proj"), ("k_proj",), ("q_proj", "k_proj", "v_proj")]),
        ),
        max_size=5,
    ),
    pack=st.booleans(),
)
def test_any_sequence_of_loads_matches_vllms_own_loop(fills: list[Any], pack: bool) -> None:
    actual, reference = model(pack), model(pack)
    stacks = stacked_slots.stack_layers(actual)
    for seed, (slot, rank, chosen) in enumerate(fills):
        w = weights(seed, spec(rank, chosen))
        locations = stacked_slots.locate_modules(w.spec, name, PACKED, stacks)
        assert locations is not None
        stacked_slots.StackedAdapter(w, locations).fill(stacks, slot)
        fill_as_vllm(reference, slot, w)
    for one, other in zip(actual.values(), reference.values(), strict=True):
        for i in range(3):
            assert torch.equal(one.lora_a_stacked[i], other.lora_a_stacked[i])
            assert torch.equal(one.lora_b_stacked[i], other.lora_b_stacked[i])


@pytest.mark.parametrize("pack", [True, False])
def test_stacking_keeps_contents_shapes_and_layout(pack: bool) -> None:
    modules = model(pack)
    fill_as_vllm(modules, 1, weights(0, spec()))
    before = [(m.lora_b_stacked[2].clone(), m.lora_b_stacked[2].stride()) for m in modules.values()]
    stacked_slots.stack_layers(modules)
    after = [(m.lora_b_stacked[2], m.lora_b_stacked[2].stride()) for m in modules.values()]
    for (b, stride), (b_now, stride_now) in zip(before, after, strict=True):
        assert torch.equal(b, b_now)
        assert stride == stride_now


def test_cpu_lora_uses_an_adapter_loaded_into_stacked_slots() -> None:
    modules = model()
    stacks = stacked_slots.stack_layers(modules)
    module = modules["model.layers.1.self_attn.qkv_proj"]
    stacked = module.lora_a_stacked, module.lora_b_stacked
    assert cpu_lora.layer_weights(*stacked).used == []
    w = weights(0, spec())
    locations = stacked_slots.locate_modules(w.spec, name, PACKED, stacks)
    assert locations is not None
    stacked_slots.StackedAdapter(w, locations).fill(stacks, 1)
    q, v = cpu_lora.layer_weights(*stacked).used
    assert (q.start, v.start) == (0, Q + K)
    assert torch.equal(q.down[RANK:], w.a["q_proj"][1])
    assert torch.equal(v.up[RANK:], w.b["v_proj"][1].T * w.spec.scaling)


def test_tensor_parallel_layers_are_not_stacked() -> None:
    assert stacked_slots.stack_layers(model(tp_size=2)) == {}


def test_unequal_layers_are_not_stacked() -> None:
    modules = model()
    modules["model.layers.1.self_attn.qkv_proj"] = layer(True, size=7)
    before = modules["model.layers.0.self_attn.qkv_proj"].lora_a_stacked
    assert stacked_slots.stack_layers(modules) == {}
    assert modules["model.layers.0.self_attn.qkv_proj"].lora_a_stacked is before


def test_layers_without_the_first_are_not_stacked() -> None:
    """As on the second rank of pipeline parallelism."""
    assert stacked_slots.stack_layers(dict(list(model().items())[1:])) == {}


@pytest.mark.parametrize("other", [spec(layers=2), spec(modules=("q_proj",)).model_copy(update={
    "modules": (ModuleShape(path="mlp.up_proj", in_features=5, out_features=6),)})])  # fmt: skip
def test_adapter_of_another_shape_has_no_locations(other: LoraSpec) -> None:
    assert stacked_slots.locate_modules(other, name, PACKED, stacked_slots.stack_layers(model())) is None


class Manager:
    """The slot assignment of vLLM's manager, without the rest."""

    def __init__(self) -> None:
        self.modules = model()
        self._registered_adapters: dict[int, Any] = {}
        self._active_adapters: dict[int, None] = {}
        self.lora_index_to_id: list[int | None] = [None] * SLOTS

    def _create_lora_modules(self) -> None: ...

    def _add_adapter(self, lora: Any) -> None:
        self._registered_adapters[lora.id] = lora

    def activate_adapter(self, lora_id: int) -> bool:
        if lora_id in self._active_adapters:
            return False
        slot = self.lora_index_to_id.index(None)
        self._active_adapters[lora_id] = None
        self.lora_index_to_id[slot] = lora_id
        fill_as_vllm(self.modules, slot, self._registered_adapters[lora_id].weights)
        return True

    def deactivate(self, lora_id: int) -> None:
        del self._active_adapters[lora_id]
        self.lora_index_to_id[self.lora_index_to_id.index(lora_id)] = None


def test_slot_assignment_matches_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora import model_manager

    monkeypatch.setattr(model_manager, "LoRAModelManager", Manager)
    stacked_slots.install()
    manager = Manager()
    manager._create_lora_modules()
    w = weights(0, spec())
    locations = stacked_slots.locate_modules(w.spec, name, PACKED, manager.t2l_stacks)  # type: ignore[attr-defined]
    assert locations is not None
    for number in (7, 8, 9):
        adapter = stacked_slots.StackedAdapter(w, locations)
        manager._add_adapter(SimpleNamespace(id=number, t2l_stacked_adapter=adapter))
    assert manager.activate_adapter(7)
    assert manager.activate_adapter(8)
    assert not manager.activate_adapter(8)  # already active, as in vLLM
    assert manager.lora_index_to_id == [7, 8]
    with pytest.raises(ValueError, match="no LoRA slot is free"):
        manager.activate_adapter(9)


def test_next_adapter_clears_slices_that_vllm_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora import model_manager

    monkeypatch.setattr(model_manager, "LoRAModelManager", Manager)
    stacked_slots.install()
    manager = Manager()
    manager._create_lora_modules()
    everywhere, w = weights(0, spec(modules=("q_proj", "k_proj", "v_proj"))), weights(1, spec())
    locations = stacked_slots.locate_modules(w.spec, name, PACKED, manager.t2l_stacks)  # type: ignore[attr-defined]
    assert locations is not None
    manager._add_adapter(SimpleNamespace(id=1, weights=everywhere))
    manager._add_adapter(SimpleNamespace(id=2, t2l_stacked_adapter=stacked_slots.StackedAdapter(w, locations)))
    manager.activate_adapter(1)
    manager.deactivate(1)
    manager.activate_adapter(2)
    for module in manager.modules.values():
        assert not module.lora_b_stacked[1].any()
        assert not module.lora_a_stacked[1].any()
