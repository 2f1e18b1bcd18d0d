"""Arrow: every token picks a few LoRAs of a library in each layer, without a trained router.

Source: Ostapenko et al. 2024, "Towards Modular LLMs by Building and Reusing a Library of LoRAs".
The prototype of an expert in a layer is the first right singular vector v of B A. This is the input
direction that the update stretches most. A token x has the score |x . v| for the expert, because
the sign of a singular vector is arbitrary. A softmax over the k best scores gives the weights w_e:

    W x + scaling * sum_e w_e(x) B_e A_e x
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypernet.config import LoraSpec
from hypernet.lora import LoraBatch
from hypernet.lora_injector import LAYERS_PATH

TOP_K = 4


def prototypes(a: Tensor, b: Tensor) -> Tensor:
    """First right singular vector of each B A. The product itself is never formed.

    With B = Q_b R_b and A^T = Q_a R_a the product is Q_b (R_b R_a^T) Q_a^T. The r x r matrix in the
    middle has the same singular values.

    Args:
        a: [..., r, in].
        b: [..., out, r].

    Returns:
        Unit vectors, [..., in].
    """
    q_a, r_a = torch.linalg.qr(a.float().transpose(-1, -2))  # [..., in, r], [..., r, r]
    r_b = torch.linalg.qr(b.float()).R  # [..., r, r]
    right = torch.linalg.svd(r_b @ r_a.transpose(-1, -2)).Vh[..., 0, :]  # [..., r]
    directions: Tensor = (q_a @ right[..., None]).squeeze(-1)  # [..., in]
    return directions


def routing_weights(x: Tensor, v: Tensor, k: int) -> Tensor:
    """Weight of each expert for each token. The k best experts share 1; the others get 0.

    Args:
        x: tokens, [..., in].
        v: prototypes, [E, in].
        k: experts per token.

    Returns:
        [..., E], in fp32.
    """
    scores = (x @ v.to(x.dtype).T).abs().float()  # [..., E]
    best = scores.topk(min(k, len(v)), dim=-1)
    return torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1))


class Arrow:
    """A LoRA library with its prototypes, ready for routing.

    Args:
        spec: shape and scale of the LoRAs.
        experts: E LoRAs.
        dtype, device: of the model that the LoRAs are applied to.
        k: experts per token.
    """

    def __init__(
        self, spec: LoraSpec, experts: LoraBatch, dtype: torch.dtype, k: int = TOP_K, device: str = "cpu"
    ) -> None:
        self.spec, self.k = spec, k
        self._layers: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for m in spec.modules:
            a, b = experts.a[m.name].to(device), experts.b[m.name].to(device)  # [E, L, r, in], [E, L, out, r]
            v = prototypes(a, b)  # [E, L, in]
            # Side by side, all experts are one wide LoRA: two large products instead of 2 E small
            # ones.
            self._layers[m.name] = [
                (
                    v[:, layer],  # [E, in]
                    a[:, layer].flatten(0, 1).T.to(dtype).contiguous(),  # [in, E r]
                    b[:, layer].transpose(1, 2).flatten(0, 1).to(dtype).contiguous(),  # [E r, out]
                )
                for layer in range(spec.num_layers)
            ]

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Route every token of the model inside the `with` block."""
        handles = [
            model.get_submodule(f"{LAYERS_PATH}.{layer}.{m.path}").register_forward_hook(
                self._hook(m.name, layer)
            )
            for m in self.spec.modules
            for layer in range(self.spec.num_layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, layer: int) -> Any:
        v, a, b = self._layers[name][layer]  # [E, in], [in, E r], [E r, out]

        def add_experts(_: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            x = args[0]  # [..., in]
            weights = routing_weights(x, v, self.k).to(x.dtype)  # [..., E]
            h = (x @ a).view(*weights.shape, -1) * weights[..., None]  # [..., E, r]
            mixed: Tensor = h.flatten(-2) @ b  # [..., out]
            return output + self.spec.scaling * mixed

        return add_experts
