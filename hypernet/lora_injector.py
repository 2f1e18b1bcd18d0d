"""LoRA on a loaded model: one adapter per row of the batch, with gradients into the adapters.

PEFT holds adapters as parameters of the model. A hypernetwork's outputs are not parameters, and
every row of its training batch has its own adapter. So the adapted layer is computed functionally
(T2L, Charakorn et al. 2025, equation 1):

    W x + scaling * B A x

A and B are tensors in the autograd graph of the hypernetwork. The base model's weights and module
tree stay unchanged, and `LoraInjector.remove` takes everything off again.
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
"""Path of the decoder layers in a model of a supported family."""

_PerLayer = dict[str, list[Any]]
"""Module name -> per layer A^T [N, in, r] and B^T [N, r, out], or None."""


class LoraInjector:
    """Forward hooks on the adapted linear layers of one model. They do nothing outside of `use`.

    Args:
        model: a transformers causal LM (Llama, Mistral, Gemma-2, Qwen2/3).
        spec: adapted layers, their shapes, and the scale.

    Raises:
        InvalidLoraError: the model lacks a layer of the spec, has another shape there, or already
            has an injector.

    Not thread-safe: the adapters in use are state of the model.
    """

    def __init__(self, model: nn.Module, spec: LoraSpec) -> None:
        self.spec = spec
        linears: dict[str, list[Any]] = {
            m.name: [_find_linear(model, m, i) for i in range(spec.num_layers)] for m in spec.modules
        }
        if (found := len(list(model.get_submodule(LAYERS_PATH).children()))) != spec.num_layers:
            raise InvalidLoraError(f"num_layers is {spec.num_layers}, the model has {found}")
        if any(hasattr(linear, "lora") for layers in linears.values() for linear in layers):
            raise InvalidLoraError("the model already has an injector: call its remove() first")
        self._linears = linears
        self._handles = []
        for layers in linears.values():
            for linear in layers:
                linear.lora, linear.lora_scaling = None, spec.scaling
                self._handles.append(linear.register_forward_hook(_add_lora))

    @contextmanager
    def use(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Iterator[None]:
        """Run the model with N adapters inside the `with` block.

        In a batch of k * N rows, adapter i applies to rows i * k to i * k + k - 1. So k = 1 is one
        adapter per row, and N = 1 is one adapter for all rows. Gradients flow into `a` and `b`.
        `backward` may be called after the block, unless the model uses activation checkpointing: it
        runs the layers again.

        Args:
            a: module name -> A, [N, layers, r, in].
            b: module name -> B, [N, layers, out, r]. Both are cast once to the layer's dtype.

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
        """Attach adapters to the layers and return the ones attached before."""
        before = {name: [linear.lora for linear in layers] for name, layers in self._linears.items()}
        for name, layers in self._linears.items():
            for linear, pair in zip(layers, adapters[name], strict=True):
                linear.lora = pair
        return before

    def _per_layer(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> _PerLayer:
        """A^T [N, in, r] and B^T [N, r, out] per module and layer: views, after one cast."""
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
            # unbind, not indexing: the backward pass of unbind is one stack. Indexing pads every
            # layer's gradient to all layers and adds them up.
            dtype = self._linears[m.name][0].weight.dtype
            layers_a = a[m.name].to(dtype).transpose(-1, -2).unbind(1)
            layers_b = b[m.name].to(dtype).transpose(-1, -2).unbind(1)
            bound[m.name] = list(zip(layers_a, layers_b, strict=True))
        return bound


def _add_lora(linear: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
    """Forward hook of an adapted layer.

    All layers share this function and hold their adapter as an attribute, so torch.compile sees the
    same code and shapes for every layer and compiles them once.
    """
    if linear.lora is None:
        return output
    a, b = linear.lora
    x, n = args[0], a.shape[0]
    if x.shape[0] % n:
        raise InvalidLoraError(f"a batch of {x.shape[0]} rows cannot be divided among {n} adapters")
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
