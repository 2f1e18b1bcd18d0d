"""LoRA on a live model, one adapter per row of the batch, with gradients into the adapters.

PEFT holds adapters as parameters of the model: a hypernetwork's outputs are no
parameters, and every row of its training batch has an adapter of its own. So
the adapted layer is computed functionally (T2L, Charakorn et al. 2025, equation 1):

    W x + scaling * B A x

with A and B plain tensors that remember how they were made. The base model
stays as it is, weights and module tree, and `remove` leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypernet.config import LoraSpec, ModuleShape
from hypernet.lora import InvalidLoraError

LAYERS_PATH = "model.layers"
"""Where the supported families keep their decoder layers."""

_PerLayer = dict[str, list[Any]]
"""Module name -> per layer A^T [N, in, r] and B^T [N, r, out], or None."""


class LoraInjector:
    """Forward hooks on the adapted linear layers of one model, idle until `use`.

    Args:
        model: a transformers causal LM (Llama, Mistral, Gemma-2, Qwen2/3).
        spec: which layers, their shapes, and the scale.

    Raises:
        InvalidLoraError: the model lacks a layer of the spec, has another shape there, or has an
            injector already.

    One injector serves one thread at a time: what is in use is the model's state.
    """

    def __init__(self, model: nn.Module, spec: LoraSpec) -> None:
        self.spec = spec
        linears: dict[str, list[Any]] = {
            m.name: [_find_linear(model, m, i) for i in range(spec.num_layers)] for m in spec.modules
        }
        if len(list(model.get_submodule(LAYERS_PATH).children())) != spec.num_layers:
            raise InvalidLoraError(f"num_layers is {spec.num_layers}, the model has another number")
        if any(hasattr(linear, "lora") for layers in linears.values() for linear in layers):
            raise InvalidLoraError("the model has an injector already: remove that first")
        self._linears = linears
        self._handles = []
        for layers in linears.values():
            for linear in layers:
                linear.lora, linear.lora_scaling = None, spec.scaling
                self._handles.append(linear.register_forward_hook(_add_lora))

    @contextmanager
    def use(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Iterator[None]:
        """Run the model with these adapters inside the `with`.

        A batch of k * N rows gives adapter i to rows i * k ... i * k + k - 1: k = 1
        is one adapter per row, N = 1 one adapter for all. Gradients flow into `a` and
        `b`; `backward` may come after the block unless the model checkpoints its
        activations, which run the layers once more and then need the adapters again.

        Args:
            a: module name -> A, [N, layers, r, in].
            b: module name -> B, [N, layers, out, r]. Both are cast to the layer's dtype, once.

        Raises:
            InvalidLoraError: naming the tensor that does not fit the spec.
        """
        before = self._set_adapters(self._per_layer(a, b))
        try:
            yield
        finally:
            self._set_adapters(before)

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        for layers in self._linears.values():
            for linear in layers:
                del linear.lora, linear.lora_scaling

    def _set_adapters(self, adapters: _PerLayer) -> _PerLayer:
        """Lay adapters beside the weights; returns what was there."""
        before = {name: [linear.lora for linear in layers] for name, layers in self._linears.items()}
        for name, layers in self._linears.items():
            for linear, pair in zip(layers, adapters[name], strict=True):
                linear.lora = pair
        return before

    def _per_layer(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> _PerLayer:
        """Per module and layer A^T [N, in, r] and B^T [N, r, out]: views, after one cast."""
        spec = self.spec
        names = {m.name for m in spec.modules}
        if set(a) != names or set(b) != names:
            raise InvalidLoraError(f"modules are {sorted({*a, *b})}, the LoRA spec needs {sorted(names)}")
        n = next(iter(a.values())).shape[0]
        bound: _PerLayer = {}
        for m in spec.modules:
            for kind, tensor, shape in (
                ("A", a[m.name], (n, spec.num_layers, spec.rank, m.in_features)),
                ("B", b[m.name], (n, spec.num_layers, m.out_features, spec.rank)),
            ):
                if tuple(tensor.shape) != shape:
                    raise InvalidLoraError(f"{m.name}.{kind} has shape {tuple(tensor.shape)}, needs {shape}")
            # unbind, not indexing: its backward is one stack where indexing pads every layer's gradient
            # to all layers and adds them up.
            dtype = self._linears[m.name][0].weight.dtype
            layers_a = a[m.name].to(dtype).transpose(-1, -2).unbind(1)
            layers_b = b[m.name].to(dtype).transpose(-1, -2).unbind(1)
            bound[m.name] = list(zip(layers_a, layers_b, strict=True))
        return bound


def _add_lora(linear: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
    """Forward hook of an adapted layer.

    One function for all layers, which finds its adapter beside the weights: a compiler that sees
    the same code and the same shapes thirty times compiles it once.
    """
    if linear.lora is None:
        return output
    a, b = linear.lora
    x, n = args[0], a.shape[0]
    if x.shape[0] % n:
        raise InvalidLoraError(f"a batch of {x.shape[0]} rows cannot be shared out to {n} adapters")
    h = torch.bmm(x.reshape(n, -1, x.shape[-1]), a)  # [kN, T, in] -> [N, kT, r]
    y = output.reshape(n, -1, output.shape[-1])  # [kN, T, out] -> [N, kT, out]
    return torch.baddbmm(y, h, b, alpha=linear.lora_scaling).view_as(output)


def _find_linear(model: nn.Module, m: ModuleShape, layer: int) -> nn.Linear:
    path = f"{LAYERS_PATH}.{layer}.{m.path}"
    try:
        linear = model.get_submodule(path)
    except AttributeError as error:
        raise InvalidLoraError(f"{path}: the model has no such layer") from error
    if not isinstance(linear, nn.Linear):
        raise InvalidLoraError(f"{path} is a {type(linear).__name__}, needs a Linear")
    if (linear.in_features, linear.out_features) != (m.in_features, m.out_features):
        raise InvalidLoraError(
            f"{path} maps {linear.in_features} to {linear.out_features} features, "
            f"the LoRA spec needs {m.in_features} to {m.out_features}"
        )
    return linear
