"""Batches of fixed sizes: equal adapters, one compilation per size, and no need of a compiler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hypernet.config import HypernetConfig, LoraSpec, ModuleShape
from hypernet.inference.batch_buckets import compile_buckets
from hypernet.inference.network import InferenceHypernet
from hypernet.lora import LoraBatch
from hypernet.model import Hypernet
from tests.support.programs import require_program

pytestmark = pytest.mark.slow

SPEC = LoraSpec(
    rank=2,
    alpha=4,
    num_layers=3,
    modules=(
        ModuleShape(path="self_attn.q_proj", in_features=6, out_features=4),
        ModuleShape(path="self_attn.v_proj", in_features=6, out_features=2),
    ),
)


def network_of(variant: str) -> InferenceHypernet:
    torch.manual_seed(0)
    fields = {"variant": variant, "lora": SPEC, "embedding_size": 5, "latent_size": 16, "head_input_size": 8}
    model = Hypernet(HypernetConfig.model_validate(fields))
    with torch.no_grad():  # nonzero heads: with zero heads all adapters would be equal
        for parameter in model.heads.parameters():
            parameter.add_(torch.randn_like(parameter))
    return InferenceHypernet(model)


def assert_same(one: LoraBatch, other: LoraBatch) -> None:
    for module in ("q_proj", "v_proj"):
        torch.testing.assert_close(one.a[module], other.a[module])
        torch.testing.assert_close(one.b[module], other.b[module])


@pytest.mark.parametrize("variant", ["L", "S"])
def test_bucketed_batches_equal_the_network_and_each_size_is_compiled_once(variant: str) -> None:
    require_program("g++")
    network = network_of(variant)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    fixed = compile_buckets(network, torch.zeros(1, 5), sizes=(1, 4))
    for count in (1, 2, 4, 5, 9):
        embeddings = torch.randn(count, 5)
        assert_same(fixed(embeddings), network(embeddings))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_network_runs_uncompiled_where_compilation_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(_: Tensor) -> LoraBatch:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    network = network_of("L")
    assert compile_buckets(network, torch.zeros(1, 5), sizes=(1, 4)) is network
    assert "uncompiled" in caplog.text
