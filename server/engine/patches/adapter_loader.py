"""Loads adapters from memory in vLLM's workers, where vLLM would read a folder.

An RPC stages the weights of an adapter under its integer id. vLLM then loads the adapter by path:
for a path `t2l://<adapter id>` it gets the staged weights, for any other path it reads the folder.
Staged weights stay as long as the adapter is registered, because vLLM may load it again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from hypernet.lora import LoraWeights
from server.engine import serialization
from server.engine.device_handles import DeviceHandle
from server.engine.patches import stacked_slots

if TYPE_CHECKING:
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.request import LoRARequest

SCHEME = "t2l://"

_staged: dict[int, LoraWeights] = {}
"""Weights of the adapters that are registered with this worker, by integer id."""


class WorkerExtension:
    """Methods that `collective_rpc` can call on every worker (vLLM's `worker_extension_cls`)."""

    device: torch.device
    lora_config: Any
    model_runner: Any

    def t2l_load(
        self, int_id: int, path: str, spec: str, data: bytes | DeviceHandle, evict: int | None
    ) -> None:
        """Load an adapter into a slot, after evicting the adapter in it.

        One RPC does both, because each RPC waits for the engine's next step. If it fails, neither
        adapter is registered.

        Args:
            int_id: vLLM's integer id of the adapter. No other registered adapter has it.
            path: the content-addressed name, `t2l://<adapter id>`.
            spec: `LoraSpec` as JSON.
            data: the weights, from `serialization.serialize`.
            evict: integer id of the adapter to evict first, or None.
        """
        from vllm.lora.request import LoRARequest

        if evict is not None:
            self.t2l_unload(evict)
        # One copy to the device. The slots are filled from there, without pinning tensor by tensor.
        _staged[int_id] = serialization.deserialize(spec, data, self.device, self.lora_config.lora_dtype)
        try:
            self.model_runner.add_lora(LoRARequest(lora_name=path, lora_int_id=int_id, lora_path=path))
        except BaseException:
            self.t2l_unload(int_id)
            raise

    def t2l_unload(self, int_id: int) -> None:
        """Evict an adapter and free its staged weights. Unknown ids are ignored."""
        self.model_runner.remove_lora(int_id)
        _staged.pop(int_id, None)


def install() -> None:
    """Have vLLM's `WorkerLoRAManager` load `t2l://` paths from memory."""
    from vllm.lora.worker_manager import WorkerLoRAManager

    WorkerLoRAManager._load_adapter = wrap_load_adapter(WorkerLoRAManager._load_adapter)


def wrap_load_adapter(
    original: Callable[[Any, LoRARequest], LoRAModel],
) -> Callable[[Any, LoRARequest], LoRAModel]:
    """Wrap `WorkerLoRAManager._load_adapter` so that it loads `t2l://` paths from memory."""

    def _load_adapter(self: Any, lora_request: LoRARequest) -> LoRAModel:
        if not lora_request.lora_path.startswith(SCHEME):
            return original(self, lora_request)
        weights = _staged.get(lora_request.lora_int_id)
        if weights is None:
            raise KeyError(f"adapter {lora_request.lora_path} is not staged: load it with t2l_load first")
        return build_lora_model(lora_request.lora_int_id, weights, self._adapter_manager)

    return _load_adapter


def build_lora_model(int_id: int, weights: LoraWeights, manager: Any) -> LoRAModel:
    """Convert weights into vLLM's representation of an adapter.

    Args:
        int_id: vLLM's integer id of the adapter.
        weights: weights in the engine's dtype.
        manager: vLLM's adapter manager. If its slots are stacked (`stacked_slots`), the result
            refers to the weights of whole modules and has no layers.
    """
    from vllm.lora.lora_model import LoRAModel

    spec = weights.spec
    model: type = type(manager.model)
    if stacks := getattr(manager, "t2l_stacks", None):
        found = stacked_slots.locate_modules(
            spec, lambda path: _vllm_names(path, 1, model)[0], manager.packed_modules, stacks
        )
        if found is not None:
            lora = LoRAModel(int_id, spec.rank, {})
            lora.t2l_stacked_adapter = stacked_slots.StackedAdapter(weights, found)
            return lora
    return LoRAModel(int_id, spec.rank, _layer_weights(weights, model))


def _layer_weights(weights: LoraWeights, model: type) -> dict[str, Any]:
    """vLLM's weights of every layer of every module, by vLLM's name of the layer.

    B is a scaled copy. With a scaling other than 1, vLLM would multiply the staged tensors in
    place.
    """
    from vllm.lora.lora_weights import LoRALayerWeights

    spec = weights.spec
    loras = {}
    for module in spec.modules:
        a, b = weights.a[module.name].unbind(), (weights.b[module.name] * spec.scaling).unbind()
        for layer, name in enumerate(_vllm_names(module.path, spec.num_layers, model)):
            loras[name] = LoRALayerWeights(name, spec.rank, spec.rank, a[layer], b[layer], scaling=1.0)
    return loras


@cache
def _vllm_names(path: str, layers: int, model: type) -> tuple[str, ...]:
    """vLLM's names of one module in all layers. Cached, because an adapter has hundreds."""
    from vllm.lora.utils import parse_fine_tuned_lora_name

    mapper = getattr(model, "hf_to_vllm_mapper", None)
    renames = mapper.get_rename_mapper() if mapper else None
    peft = (f"base_model.model.model.layers.{layer}.{path}.lora_A.weight" for layer in range(layers))
    return tuple(parse_fine_tuned_lora_name(name, renames)[0] for name in peft)
