"""Prepacked linear layers equal the plain ones to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypernet.inference import prepacked_linear


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [(1,), (18,), (2, 30), (64, 18)])
@pytest.mark.parametrize("biased", [True, False])
def test_prepacked_layer_equals_the_plain_layer(
    dtype: torch.dtype, rows: tuple[int, ...], biased: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(96, 40, bias=biased).to(dtype).requires_grad_(False)
    x = torch.randn(*rows, 96).to(dtype)
    layer = prepacked_linear.PrepackedLinear(plain)
    with torch.inference_mode():
        assert torch.equal(layer(x), plain(x))


def test_only_layers_that_can_be_prepacked_are_replaced() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2).bfloat16()))
    prepacked_linear.prepack(model)
    assert type(model[0]) is nn.Linear
    replaced = type(model[2][0]) is prepacked_linear.PrepackedLinear
    assert replaced == prepacked_linear.can_prepack(torch.zeros(2, 4, dtype=torch.bfloat16))


def test_layers_are_unchanged_without_onednn_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked_linear, "can_prepack", lambda _: False)
    plain = nn.Linear(8, 8).bfloat16()
    x = torch.randn(3, 8).bfloat16()
    with torch.inference_mode():
        assert torch.equal(prepacked_linear.linear_fn(plain.weight, plain.bias)(x), plain(x))
