"""Fused layers equal transformers' layers, with padding, in fp32 and bf16."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertConfig, BertModel

from hypernet.inference.fused_bert import FusedBertLayer, fuse_bert_layers


def bert(**changes: object) -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96}
    model = BertModel(BertConfig(vocab_size=50, **sizes | changes)).eval()
    for weight in model.parameters():  # biases and norms start at 0 and 1, which would hide a mix-up
        nn.init.normal_(weight, std=0.3)
    return model


def states(model: BertModel) -> torch.Tensor:
    ids = torch.tensor([[2, 7, 9, 4, 3], [2, 8, 3, 0, 0], [2, 5, 6, 3, 0]])
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_fused_layers_match_transformers_with_padding(dtype: torch.dtype, off: float) -> None:
    model = bert().to(dtype)
    before = states(model)
    fuse_bert_layers(model)
    assert all(type(layer) is FusedBertLayer for layer in model.encoder.layer)
    torch.testing.assert_close(states(model), before, atol=off, rtol=off)


def test_nested_bert_is_fused() -> None:
    model = nn.Sequential(bert())
    fuse_bert_layers(model)
    assert type(model[0].encoder.layer[0]) is FusedBertLayer and model[0].pooler is None


@pytest.mark.parametrize("changes", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_unsupported_bert_is_left_unchanged(changes: dict[str, object]) -> None:
    model = bert(**changes)
    before = states(model)
    fuse_bert_layers(model)
    assert torch.equal(states(model), before)
    assert not any(isinstance(layer, FusedBertLayer) for layer in model.encoder.layer)
