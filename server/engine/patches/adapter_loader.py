"""Loads adapters from memory inside vLLM's worker: staged by an RPC, picked up where vLLM would read a folder.

vLLM asks for an adapter by path. A path `t2l://<adapter id>` means the buffer
that was staged under the request's integer id; any other path is vLLM's own
affair. Staged buffers stay for as long as the adapter is registered, because
vLLM may ask again.
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
"""What the adapters registered with this worker are made of, by integer id."""


class WorkerExtension:
    """Methods that `collective_rpc` finds on every worker (vLLM's `worker_extension_cls`)."""

    device: torch.device
    lora_config: Any
    model_runner: Any

    def t2l_load(
        self, int_id: int, path: str, spec: str, data: bytes | DeviceHandle, evict: int | None
    ) -> None:
        """Put an adapter into a slot, after taking out the one whose place it gets.

        One call does both, since each waits for the engine's next step. If it
        fails, neither is registered.

        Args:
            int_id: vLLM's number for the adapter, never in use twice at a time.
            path: its content-addressed name, `t2l://<adapter id>`.
            spec: `LoraSpec` as JSON.
            data: of `serialization.serialize`.
            evict: number of the adapter to take out first.
        """
        from vllm.lora.request import LoRARequest

        if evict is not None:
            self.t2l_unload(evict)
        # One copy to the device; the slots are then filled from there, without pinning tensor by tensor.
        _staged[int_id] = serialization.deserialize(spec, data, self.device, self.lora_config.lora_dtype)
        try:
            self.model_runner.add_lora(LoRARequest(lora_name=path, lora_int_id=int_id, lora_path=path))
        except BaseException:
            self.t2l_unload(int_id)
            raise

    def t2l_unload(self, int_id: int) -> None:
        """Take an adapter out and drop its bytes. Unknown numbers are ignored."""
        self.model_runner.remove_lora(int_id)
        _staged.pop(int_id, None)


def install() -> None:
    """Have vLLM's `WorkerLoRAManager` load `t2l://` paths from memory."""
    from vllm.lora.worker_manager import WorkerLoRAManager

    WorkerLoRAManager._load_adapter = wrap_load_adapter(WorkerLoRAManager._load_adapter)


def wrap_load_adapter(
    original: Callable[[Any, LoRARequest], LoRAModel],
) -> Callable[[Any, LoRARequest], LoRAModel]:
    """Wrap `WorkerLoRAManager._load_adapter` so that it knows `t2l://` paths."""

    def _load_adapter(self: Any, lora_request: LoRARequest) -> LoRAModel:
        if not lora_request.lora_path.startswith(SCHEME):
            return original(self, lora_request)
        weights = _staged.get(lora_request.lora_int_id)
        if weights is None:
            raise KeyError(f"adapter {lora_request.lora_path} was never staged, or is no longer registered")
        return build_lora_model(lora_request.lora_int_id, weights, self._adapter_manager)

    return _load_adapter


def build_lora_model(int_id: int, weights: LoraWeights, manager: Any) -> LoRAModel:
    """Adapter weights as vLLM holds them.

    Args:
        int_id: vLLM's number for the adapter.
        weights: of the engine's dtype.
        manager: vLLM's adapter manager; where it has stacked its layers (`stacked_slots.py`) the adapter
            is told its places there, and has no layers of its own.
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
    """vLLM's record for every layer of every module, by its name for the layer.

    B is a scaled copy: told of a scaling, vLLM would fold it into the tensors that it is given.
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
    """vLLM's names of one module in every layer; an adapter has hundreds, so they are worked out once."""
    from vllm.lora.utils import parse_fine_tuned_lora_name

    mapper = getattr(model, "hf_to_vllm_mapper", None)
    renames = mapper.get_rename_mapper() if mapper else None
    peft = (f"base_model.model.model.layers.{layer}.{path}.lora_A.weight" for layer in range(layers))
    return tuple(parse_fine_tuned_lora_name(name, renames)[0] for name in peft)
