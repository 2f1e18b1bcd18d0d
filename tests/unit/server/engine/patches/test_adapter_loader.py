"""The in-memory loader against vLLM's own classes, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hypernet.config import LoraSpec, ModuleShape
from hypernet.lora import LoraWeights
from server.engine import serialization
from server.engine.patches import adapter_loader

pytest.importorskip("vllm")

SPEC = LoraSpec(
    rank=4,
    alpha=8,
    num_layers=2,
    modules=(
        ModuleShape(path="self_attn.q_proj", in_features=6, out_features=6),
        ModuleShape(path="self_attn.v_proj", in_features=6, out_features=3),
    ),
)


class Plain:
    """A model without a mapper: its modules have the names of the checkpoint."""


class Worker(adapter_loader.WorkerExtension):
    """A worker whose model runner loads adapters as vLLM's does and records them."""

    device = torch.device("cpu")
    lora_config = SimpleNamespace(lora_dtype=torch.bfloat16)

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.fail = False
        self.model_runner = SimpleNamespace(add_lora=self._add, remove_lora=self._remove)
        self._adapter_manager = SimpleNamespace(model=Plain())
        self.load_adapter = adapter_loader.wrap_load_adapter(
            lambda _, request: ("from disk", request.lora_path)
        )

    def _add(self, request: Any) -> bool:
        self.calls.append(("add", request.lora_int_id))
        if self.fail:
            raise RuntimeError("no room")
        self.loaded = self.load_adapter(self, request)
        return True

    def _remove(self, int_id: int) -> bool:
        self.calls.append(("remove", int_id))
        return True


@pytest.fixture
def worker() -> Any:
    yield Worker()
    adapter_loader._staged.clear()


def serialized() -> tuple[LoraWeights, str, bytes]:
    weights = LoraWeights.unflatten(SPEC, torch.randn(SPEC.num_parameters))
    packed = serialization.serialize(weights, SPEC)
    return weights, packed.spec, bytes(packed.data)


def test_staged_adapter_is_loaded_without_a_file(worker: Worker) -> None:
    weights, spec, data = serialized()
    worker.t2l_load(3, "t2l://abc", spec, data, None)
    assert (worker.loaded.id, worker.loaded.rank) == (3, 4)
    assert sorted(worker.loaded.loras) == [
        f"model.layers.{i}.self_attn.{m}_proj" for i in range(2) for m in ("q", "v")
    ]
    layer = worker.loaded.loras["model.layers.1.self_attn.v_proj"]
    assert torch.equal(layer.lora_a, weights.a["v_proj"][1].bfloat16())
    assert torch.equal(layer.lora_b, (weights.b["v_proj"][1] * 2).bfloat16())


def test_vllm_does_not_scale_staged_tensors(worker: Worker) -> None:
    _, spec, data = serialized()
    worker.t2l_load(3, "t2l://abc", spec, data, None)
    before = {name: t.clone() for name, t in adapter_loader._staged[3].b.items()}
    for lora in worker.loaded.loras.values():
        lora.optimize()
    assert all(torch.equal(adapter_loader._staged[3].b[name], t) for name, t in before.items())


def test_registered_adapter_can_be_loaded_again(worker: Worker) -> None:
    from vllm.lora.request import LoRARequest

    _, spec, data = serialized()
    request = LoRARequest("t2l://abc", 3, "t2l://abc")
    worker.t2l_load(3, "t2l://abc", spec, data, None)
    assert worker.load_adapter(worker, request).id == 3
    worker.t2l_unload(3)
    with pytest.raises(KeyError, match="t2l://abc is not staged"):
        worker.load_adapter(worker, request)


def test_one_call_evicts_and_loads(worker: Worker) -> None:
    _, spec, data = serialized()
    worker.t2l_load(1, "t2l://old", spec, data, None)
    worker.t2l_load(2, "t2l://new", spec, data, 1)
    assert worker.calls == [("add", 1), ("remove", 1), ("add", 2)]
    assert list(adapter_loader._staged) == [2]


def test_failed_load_unstages_the_weights(worker: Worker) -> None:
    _, spec, data = serialized()
    worker.fail = True
    with pytest.raises(RuntimeError, match="no room"):
        worker.t2l_load(1, "t2l://abc", spec, data, None)
    assert not adapter_loader._staged


def test_other_paths_are_loaded_by_vllm(worker: Worker) -> None:
    from vllm.lora.request import LoRARequest

    request = LoRARequest("x", 9, "/adapters/x")
    assert worker.load_adapter(worker, request) == ("from disk", "/adapters/x")


def test_module_names_follow_the_models_mapper(worker: Worker) -> None:
    from vllm.model_executor.models.utils import WeightsMapper

    class Renamed:
        hf_to_vllm_mapper = WeightsMapper(orig_to_new_prefix={"model.": "language_model.model."})

    weights, _, _ = serialized()
    assert (
        "language_model.model.layers.0.self_attn.q_proj"
        in adapter_loader.build_lora_model(1, weights, SimpleNamespace(model=Renamed())).loras
    )
