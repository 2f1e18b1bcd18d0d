"""Functional LoRA against three other computations: by hand, merged into the weights,
and by PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from hypernet.base_model import TARGET_MODULES, lora_spec
from hypernet.config import LoraSpec
from hypernet.lora import InvalidLoraError, LoraWeights
from hypernet.lora_injector import LoraInjector

Adapters = tuple[dict[str, Tensor], dict[str, Tensor]]
IDS = torch.tensor([[1, 5, 9, 2, 7], [3, 3, 8, 1, 4], [6, 2, 2, 9, 5], [4, 8, 1, 1, 3]])


@pytest.fixture(params=["llama", "gemma2"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        request.param,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=40,
        pad_token_id=0,
        initializer_range=0.2,  # so that logits differ enough to compare
    )
    yield AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def spec_of(model: Any, *, use_rslora: bool = False) -> LoraSpec:
    return lora_spec(
        model.config.to_dict(), rank=3, alpha=6, use_rslora=use_rslora, target_modules=TARGET_MODULES
    )


def adapters(spec: LoraSpec, n: int) -> Adapters:
    generator = torch.Generator().manual_seed(1)
    size = (n, spec.num_layers)
    a = {m.name: 0.2 * torch.randn(*size, spec.rank, m.in_features, generator=generator) for m in spec.modules}
    b = {m.name: 0.2 * torch.randn(*size, m.out_features, spec.rank, generator=generator) for m in spec.modules}
    return a, b


def logits(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    out: Tensor = model(ids).logits
    return out


def merged_logits(
    model: nn.Module, spec: LoraSpec, a: dict[str, Tensor], b: dict[str, Tensor], row: int
) -> Tensor:
    """Logits of one row with its adapter merged into the weights, which are restored afterwards."""
    weights = LoraWeights(spec, {k: t[row] for k, t in a.items()}, {k: t[row] for k, t in b.items()})
    saved = {k: t.clone() for k, t in model.state_dict().items()}
    for m in spec.modules:
        for layer, delta in enumerate(weights.delta(m.name)):
            model.get_submodule(f"model.layers.{layer}.{m.path}").weight.data += delta
    out = logits(model, IDS[row : row + 1])
    model.load_state_dict(saved)
    return out


@pytest.mark.parametrize("use_rslora", [False, True])
def test_every_row_uses_its_own_adapter(model: nn.Module, use_rslora: bool) -> None:
    spec = spec_of(model, use_rslora=use_rslora)
    a, b = adapters(spec, len(IDS))
    expected = torch.cat([merged_logits(model, spec, a, b, row) for row in range(len(IDS))])
    assert (expected - logits(model)).abs().max() > 0.1, (
        "the adapters must matter for this test to mean something"
    )

    with LoraInjector(model, spec).use(a, b):
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2])
def test_consecutive_rows_share_an_adapter(model: nn.Module, n: int) -> None:
    spec = spec_of(model)
    a, b = adapters(spec, n)
    injector = LoraInjector(model, spec)
    with injector.use(a, b):
        shared = logits(model)
    k = len(IDS) // n
    repeat = [{name: t.repeat_interleave(k, 0) for name, t in side.items()} for side in (a, b)]
    with injector.use(*repeat):
        torch.testing.assert_close(shared, logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_logits_equal_those_of_peft(model: nn.Module, use_rslora: bool) -> None:
    spec = spec_of(model, use_rslora=use_rslora)
    a, b = adapters(spec, 1)
    injector = LoraInjector(model, spec)
    with injector.use(a, b):
        ours = logits(model)
    injector.remove()

    config = peft.LoraConfig(
        r=spec.rank, lora_alpha=6, use_rslora=use_rslora, target_modules=[m.name for m in spec.modules]
    )
    wrapped = peft.get_peft_model(model, config).eval()
    for m in spec.modules:
        for layer in range(spec.num_layers):
            linear = wrapped.base_model.model.model.layers[layer].get_submodule(m.path)
            linear.lora_A.default.weight.data = a[m.name][0, layer]
            linear.lora_B.default.weight.data = b[m.name][0, layer]
    torch.testing.assert_close(ours, wrapped(IDS).logits, atol=1e-5, rtol=1e-5)


def test_gradients_reach_both_factors(model: nn.Module) -> None:
    """Compared with the plain formula, one layer and one row at a time."""
    spec = spec_of(model)
    a, b = adapters(spec, len(IDS))
    for t in (*a.values(), *b.values()):
        t.requires_grad_()
    injector = LoraInjector(model, spec)
    with injector.use(a, b):
        logits(model).square().mean().backward()
    injector.remove()
    ours = [t.grad for t in (*a.values(), *b.values())]
    for t in (*a.values(), *b.values()):
        t.grad = None

    def by_hand(name: str, layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            rows = [
                spec.scaling * (b[name][i, layer] @ (a[name][i, layer] @ x.T)).T for i, x in enumerate(args[0])
            ]
            return output + torch.stack(rows)

        return hook

    for m in spec.modules:
        for layer in range(spec.num_layers):
            model.get_submodule(f"model.layers.{layer}.{m.path}").register_forward_hook(by_hand(m.name, layer))
    logits(model).square().mean().backward()
    for mine, t in zip(ours, (*a.values(), *b.values()), strict=True):
        assert mine is not None and mine.abs().max() > 0
        torch.testing.assert_close(mine, t.grad, atol=1e-6, rtol=1e-4)


def test_bfloat16_base_accepts_float32_adapters(model: nn.Module) -> None:
    spec = spec_of(model)
    a, b = adapters(spec, len(IDS))
    injector = LoraInjector(model, spec)
    with injector.use(a, b):
        precise = logits(model)
    with pytest.raises(InvalidLoraError, match="already"):
        LoraInjector(model, spec)
    injector.remove()
    a["q_proj"].requires_grad_()
    half = model.bfloat16()
    with LoraInjector(half, spec).use(a, b):
        out = logits(half)
    out.float().mean().backward()
    assert out.dtype == torch.bfloat16
    assert a["q_proj"].grad is not None and a["q_proj"].grad.dtype == torch.float32
    assert nn.functional.cosine_similarity(out.float().flatten(), precise.flatten(), dim=0) > 0.999


def test_model_is_unchanged_after_use_and_remove(model: nn.Module) -> None:
    spec = spec_of(model)
    before, names = logits(model), set(model.state_dict())
    injector = LoraInjector(model, spec)
    with injector.use(*adapters(spec, 1)):
        inside = logits(model)
        with injector.use(*adapters(spec, 2)):
            assert not torch.equal(logits(model), inside)
        assert torch.equal(logits(model), inside)
    assert torch.equal(logits(model), before)
    with pytest.raises(RuntimeError), injector.use(*adapters(spec, 1)):
        raise RuntimeError
    assert torch.equal(logits(model), before)
    injector.remove()
    assert set(model.state_dict()) == names
    assert not any(m._forward_hooks for m in model.modules())


def test_wrong_shapes_are_refused_by_name(model: nn.Module) -> None:
    spec = spec_of(model)
    injector = LoraInjector(model, spec)
    a, b = adapters(spec, 3)
    with pytest.raises(InvalidLoraError, match="4 rows cannot be divided among 3"), injector.use(a, b):
        logits(model)
    with (
        pytest.raises(InvalidLoraError, match=r"k_proj\.B has shape"),
        injector.use(a, b | {"k_proj": b["q_proj"]}),
    ):
        pass
    with pytest.raises(InvalidLoraError, match="modules are"), injector.use({"q_proj": a["q_proj"]}, b):
        pass
    shallow, deep = (spec.model_copy(update={"num_layers": n}) for n in (1, 3))
    with pytest.raises(InvalidLoraError, match="num_layers is 1"):
        LoraInjector(model, shallow)
    with pytest.raises(InvalidLoraError, match=r"model\.layers\.2\.self_attn\.q_proj"):
        LoraInjector(model, deep)
    wide = lora_spec(model.config.to_dict() | {"head_dim": 16}, rank=3, alpha=6)
    with pytest.raises(InvalidLoraError, match="maps 32 to 32 features"):
        LoraInjector(model, wide)
