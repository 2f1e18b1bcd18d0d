"""A trained hypernetwork for inference, with all constant terms computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypernet.inference.prepacked_linear import LinearFn, linear_fn
from hypernet.lora import LoraBatch
from hypernet.model import Hypernet


class InferenceHypernet:
    """A trained hypernetwork that only generates adapters.

    The embeddings of layer and module have their own columns in the mixer's first linear layer.
    Their product is a constant per module and layer. A description's product is one row, added to
    all of them.

    Args:
        model: the network on its device. Its weights must not change afterwards.
        heads: dtype of the heads and of the adapters. bf16 products are summed in float32 with the
            bias and rounded once, so the adapter is as precise as a float32 adapter rounded to
            bf16.
    """

    @torch.inference_mode()
    def __init__(self, model: Hypernet, heads: torch.dtype = torch.float32) -> None:
        self._model = model.eval()
        _, first, *rest = model.mixer
        assert isinstance(first, nn.Linear)
        task, place_weight = first.weight.chunk(2, dim=1)
        self._task_weight = task  # [4d, d/2]
        self._position_term = F.linear(
            model.position_embedding(first.weight.device), place_weight, first.bias
        )  # [M, L, 4d]
        self._rest = nn.Sequential(*rest)
        self._heads = {m.name: _cast_head(heads, model.head(m)) for m in model.config.lora.modules}

    @torch.inference_mode()
    def __call__(self, embeddings: Tensor) -> LoraBatch:
        """Like `Hypernet.forward`, in the dtype of the heads."""
        model = self._model
        task = F.linear(model.task(embeddings), self._task_weight)[:, None, None]  # [N, 1, 1, 4d]
        x = self._rest(task + self._position_term)  # [N, M, L, d]
        return model.decode(x + model.block1(x), lambda m, x: self._heads[m.name](x))


def _cast_head(dtype: torch.dtype, head: nn.Linear) -> LinearFn:
    """A head that computes in another dtype."""
    weight, bias = head.weight.detach().to(dtype), head.bias
    multiply = linear_fn(weight, None if bias is None else bias.detach().to(dtype))
    return lambda x: multiply(x.to(dtype))
