"""The lean layers are transformers' own, whatever the padding, in both number formats."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertConfig, BertModel

from hypernet.inference import fused_bert as lean_bert


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
def test_padded_texts_have_the_same_states(dtype: torch.dtype, off: float) -> None:
    model = bert().to(dtype)
    before = states(model)
    lean_bert.make_lean(model)
    assert all(type(layer) is lean_bert.LeanLayer for layer in model.encoder.layer)
    torch.testing.assert_close(states(model), before, atol=off, rtol=off)


def test_one_inside_another_model_is_found() -> None:
    model = nn.Sequential(bert())
    lean_bert.make_lean(model)
    assert type(model[0].encoder.layer[0]) is lean_bert.LeanLayer and model[0].pooler is None


@pytest.mark.parametrize("changes", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_other_kinds_stay_as_they_are(changes: dict[str, object]) -> None:
    model = bert(**changes)
    before = states(model)
    lean_bert.make_lean(model)
    assert torch.equal(states(model), before)
    assert not any(isinstance(layer, lean_bert.LeanLayer) for layer in model.encoder.layer)
