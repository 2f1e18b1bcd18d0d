"""A batch in parts equals the whole batch: over passes and processes,
with noise and contrastive loss.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from hypernet.base_model import lora_spec
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.lora import InvalidLoraError, LoraWeights
from hypernet.packing import Example, pack
from hypernet.peft_io import save_adapter
from hypernet.training import losses as losses_module
from hypernet.training.config import SftConfig, TrainingConfigError
from hypernet.training.distributed import Workers, process_group
from hypernet.training.neftune import noise, noisy
from hypernet.training.sft import SftRun, sft_data
from tests.unit.hypernet.training.test_sft import run, task

EVERYTHING = {"rows": 5, "contrast": 0.5, "contrast_rows": 3, "neftune_alpha": 5.0, "dropout": 0.2}


@pytest.fixture
def frozen(tiny_base: Path) -> FrozenBase:
    return FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)


def one_step(made: SftRun, number: int = 3) -> tuple[float, dict[str, float], list[Tensor]]:
    """Loss, metrics and gradients of a step, dropout on."""
    torch.manual_seed(11)
    with torch.no_grad():  # away from the zero start, so that every gradient is alive
        for i, parameter in enumerate(made.model.heads.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    made.model.train()
    result = made.step(number)
    result.loss.backward()
    return result.loss.item(), result.metrics, [p.grad for p in made.model.parameters() if p.grad is not None]


def same(
    one: tuple[float, dict[str, float], list[Tensor]], other: tuple[float, dict[str, float], list[Tensor]]
) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1] == pytest.approx(other[1], rel=1e-5)
    assert len(one[2]) == len(other[2]) > 10
    for a, b in zip(one[2], other[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("accumulate", [2, 5])
def test_accumulated_gradients_equal_those_of_one_pass(
    frozen: FrozenBase, tiny_encoder: Path, accumulate: int
) -> None:
    whole = one_step(run(frozen, tiny_encoder, **EVERYTHING))
    same(whole, one_step(run(frozen, tiny_encoder, **EVERYTHING, accumulate=accumulate)))


def test_losses_and_gradients_of_processes_sum_to_those_of_one(frozen: FrozenBase, tiny_encoder: Path) -> None:
    whole = one_step(run(frozen, tiny_encoder, **EVERYTHING))
    parts = []
    for rank in range(3):
        part = run(frozen, tiny_encoder, **EVERYTHING)
        part.step.workers = Workers("cpu", rank, 3)
        parts.append(one_step(part))
    loss, metrics, gradients = zip(*parts, strict=True)
    summed = {name: sum(m[name] for m in metrics) for name in metrics[0]}
    same(whole, (sum(loss), summed, [torch.stack(g).sum(0) for g in zip(*gradients, strict=True)]))


def test_single_process_has_all_rows_and_unchanged_values() -> None:
    with process_group("cpu") as team:
        assert team == Workers("cpu")
        assert team.is_main
        assert team.local_rows(3) == [0, 1, 2]
        assert team.all_reduce([1.0, 2.0]) == [1.0, 2.0]
        assert team.broadcast(4.0) == 4.0


def test_more_passes_than_rows_are_refused(frozen: FrozenBase, tiny_encoder: Path) -> None:
    with pytest.raises(TrainingConfigError, match="rows: 4 rows"):
        run(frozen, tiny_encoder, accumulate=5)


def test_noise_has_its_published_size_and_depends_on_its_key_alone() -> None:
    short, long = Example([1, 2], [3]), Example([1, 2, 4, 5, 6, 7], [3, 3])
    packed = pack([[short], [long]], multiple=8)
    drawn = noise(packed, [7, 7], width=4, alpha=5.0)  # [2, 8, 4]
    for row, length in ((0, 3), (1, 8)):
        bound = 5.0 / (length * 4) ** 0.5
        assert drawn[row].abs().max() <= bound
        assert drawn[row].abs().max() > 0.8 * bound
    torch.testing.assert_close(drawn[0] * 3**0.5, drawn[1] * 8**0.5)
    # the same row in a wider batch has the same noise
    wider = noise(pack([[short]], multiple=16), [7], width=4, alpha=5.0)
    torch.testing.assert_close(wider[0, :8], drawn[0])
    assert not torch.equal(noise(packed, [7, 8], 4, 5.0)[1], drawn[1])


def test_noise_is_added_within_the_context_only(frozen: FrozenBase) -> None:
    layer = frozen.model.get_input_embeddings()
    ids = torch.tensor([[5, 6]])
    before = layer(ids)
    with noisy(layer, torch.ones(1, 2, 32)):
        torch.testing.assert_close(layer(ids), before + 1)
    with noisy(layer, None):
        assert torch.equal(layer(ids), before)
    assert torch.equal(layer(ids), before)


@pytest.mark.parametrize("variant", ["L", "L-rank", "M", "S"])
def test_training_starts_at_the_offset(
    frozen: FrozenBase, tiny_encoder: Path, tmp_path: Path, variant: str
) -> None:
    lora = LoraWeights.unflatten(frozen.spec, torch.randn(frozen.spec.num_parameters))
    save_adapter(tmp_path, lora, "tiny-llama", {})
    made = run(frozen, tiny_encoder, variant=variant, offset=str(tmp_path))
    generated = made.model(torch.randn(2, 16)).split(frozen.spec)
    for m in frozen.spec.modules:
        assert torch.equal(generated[1].a[m.name], lora.a[m.name])
        assert torch.equal(generated[0].b[m.name], lora.b[m.name])
    result = made.step(0)
    result.loss.backward()
    assert all(head.weight.grad.abs().max() > 0 for head in made.model.heads.values())


def test_an_offset_of_another_shape_is_refused(frozen: FrozenBase, tiny_encoder: Path, tmp_path: Path) -> None:
    spec = frozen.spec.model_copy(update={"rank": 3})
    save_adapter(tmp_path, LoraWeights.unflatten(spec, torch.randn(spec.num_parameters)), "tiny-llama", {})
    with pytest.raises(InvalidLoraError):
        run(frozen, tiny_encoder, offset=str(tmp_path))


def test_a_compiled_base_model_gives_the_same_loss(
    tiny_base: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced with the hooks in place, once for all layers.

    The code generator behind is torch's, and slow.
    """
    counter = CompileCounter()
    monkeypatch.setattr(LlamaDecoderLayer, "compile", lambda self: nn.Module.compile(self, backend=counter))
    fused = torch.compile(losses_module.token_losses, dynamic=True, backend="eager")
    monkeypatch.setattr(losses_module, "fused_token_losses", fused)
    losses = []
    for compiled in (False, True):
        base = FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)
        config = SftConfig(
            steps=1, rank=2, alpha=4, rows=3, latent_size=16, head_input_size=16, compile=compiled
        )
        data = sft_data([task("one", "red"), task("two", "blue")], config, base)
        made = SftRun(config, data, base, Encoder.load(str(tiny_encoder)))
        losses += [one_step(made, 0)[0], one_step(made, 1)[0]]
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-4)
    assert counter.frame_count <= 2  # the first layer's input needs no gradient: another graph
