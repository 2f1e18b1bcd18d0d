"""BERT layers as a dozen operations each, without the Python overhead of transformers' modules.

One description is a matrix of about twenty rows. For so few rows, a third of the time in the model
was Python. Only the layers are replaced. Embeddings and pooling stay those of transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypernet.inference.prepacked_linear import linear_fn


class FusedBertLayer(nn.Module):
    """A `BertLayer` for inference (Devlin et al. 2019). One matrix product computes q, k and v.

    Args:
        layer: the trained layer, in the dtype of the computation. Its weights must not change
            afterwards.
        heads: number of attention heads.
    """

    def __init__(self, layer: Any, heads: int) -> None:
        super().__init__()
        attention, after = layer.attention.self, layer.attention.output
        parts = (attention.query, attention.key, attention.value)
        self._heads = heads
        self._qkv = linear_fn(
            torch.cat([p.weight.detach() for p in parts]), torch.cat([p.bias.detach() for p in parts])
        )
        self._out = linear_fn(after.dense.weight.detach(), after.dense.bias.detach())
        self._up = linear_fn(layer.intermediate.dense.weight.detach(), layer.intermediate.dense.bias.detach())
        self._down = linear_fn(layer.output.dense.weight.detach(), layer.output.dense.bias.detach())
        self._norm, self._last_norm = after.LayerNorm, layer.output.LayerNorm

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """[n, T, d] -> [n, T, d].

        The mask is the one that transformers builds for its SDPA attention.
        """
        n, t, d = x.shape
        qkv = self._qkv(x).view(n, t, 3, self._heads, -1).permute(2, 0, 3, 1, 4)  # [3, n, heads, T, d / heads]
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=attention_mask)
        x = self._norm(self._out(attended.transpose(1, 2).reshape(n, t, d)) + x)
        y: Tensor = self._last_norm(self._down(F.gelu(self._up(x))) + x)
        return y


def fuse_bert_layers(model: nn.Module) -> None:
    """Replace the layers of every BERT in a model, in place and for good. The pooler is removed.

    Sentence encoders pool the last layer's states themselves. A BERT with another activation, a
    decoder, cross-attention or another attention implementation stays unchanged.
    """
    from transformers.models.bert.modeling_bert import BertModel

    berts: list[Any] = [m for m in model.modules() if type(m) is BertModel]
    for bert in berts:
        config = bert.config
        supported = config.hidden_act == "gelu" and not config.is_decoder and not config.add_cross_attention
        if supported and config._attn_implementation == "sdpa":
            heads = config.num_attention_heads
            bert.encoder.layer = nn.ModuleList(FusedBertLayer(layer, heads) for layer in bert.encoder.layer)
            bert.pooler = None
