"""The single LoRA that is nearest to all LoRAs of a hypernetwork."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hypernet.generator import Generator
from hypernet.lora import LoraWeights

CHUNK = 16


def mean_lora(generator: Generator, descriptions: Sequence[str], weights: Sequence[float]) -> LoraWeights:
    """The LoRA nearest to the mean of a hypernetwork's LoRAs, by least squares of delta W.

    The mean of many products B A has a higher rank than one LoRA. The best approximation of rank r
    keeps the r largest singular values (Eckart & Young 1936). Each factor gets their square roots.

    Args:
        generator: generates the adapters.
        descriptions: one per task.
        weights: one per description; they need not sum to one.
    """
    spec = generator.spec
    total = sum(weights)
    a, b = {}, {}
    means = {m.name: torch.zeros(spec.num_layers, m.out_features, m.in_features) for m in spec.modules}
    for i in range(0, len(descriptions), CHUNK):
        part = generator.forward(generator.embed(list(descriptions[i : i + CHUNK])))
        share = torch.tensor(weights[i : i + CHUNK], dtype=torch.float32) / total
        for name in means:
            # [K, L, out, r], [K, L, r, in] -> [L, out, K r], [L, K r, in] -> [L, out, in]
            left = (part.b[name].cpu() * share[:, None, None, None]).permute(1, 2, 0, 3).flatten(2)
            right = part.a[name].cpu().permute(1, 0, 2, 3).flatten(1, 2)
            means[name] += left @ right
    for name, mean in means.items():
        u, s, vh = torch.linalg.svd(mean, full_matrices=False)
        root = s[:, : spec.rank].sqrt()
        b[name] = (u[:, :, : spec.rank] * root[:, None]).contiguous()
        a[name] = (root[:, :, None] * vh[:, : spec.rank]).contiguous()
    return LoraWeights(spec, a, b)
