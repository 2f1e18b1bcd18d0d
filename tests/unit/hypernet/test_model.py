import pytest
import torch

from hypernet.config import HypernetConfig, LoraSpec, ModuleShape
from hypernet.inference.network import InferenceHypernet
from hypernet.model import Hypernet, apply_rotary

SPEC = LoraSpec(
    rank=4,
    alpha=8,
    num_layers=3,
    modules=(
        ModuleShape(path="self_attn.q_proj", in_features=24, out_features=24),
        ModuleShape(path="self_attn.v_proj", in_features=24, out_features=8),
        ModuleShape(path="mlp.down_proj", in_features=40, out_features=24),
    ),
)
VARIANTS = [(v, p) for v in ("L", "L-rank", "M", "S") for p in ("rotary", "learned")]


def make(variant: str, position: str, **changes: object) -> Hypernet:
    torch.manual_seed(0)
    fields = {"lora": SPEC, "variant": variant, "embedding_size": 16, "latent_size": 32, "head_input_size": 48}
    return Hypernet(HypernetConfig.model_validate({**fields, "rank_position": position, **changes}))


def disturb(model: Hypernet) -> Hypernet:
    """Make weights nonzero, so that every part of the network affects the output."""
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(("variant", "position"), VARIANTS)
def test_shapes_follow_the_lora_spec(variant: str, position: str) -> None:
    a, b = make(variant, position)(torch.randn(5, 16))
    for m in SPEC.modules:
        assert a[m.name].shape == (5, 3, 4, m.in_features)
        assert b[m.name].shape == (5, 3, m.out_features, 4)


@pytest.mark.parametrize(("variant", "position"), VARIANTS)
def test_batch_equals_one_embedding_at_a_time(variant: str, position: str) -> None:
    model = disturb(make(variant, position)).eval()
    z = torch.randn(6, 16)
    together = model(z)
    for i in range(6):
        alone = model(z[i : i + 1])
        for m in SPEC.modules:
            torch.testing.assert_close(together.a[m.name][i], alone.a[m.name][0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(together.b[m.name][i], alone.b[m.name][0], rtol=1e-5, atol=1e-6)


OUTPUTS = [("L", "rotary", {"output": o}) for o in ("offset", "z_score", "delta_w")]


@pytest.mark.parametrize(
    ("variant", "position", "changes"),
    [*((v, p, {}) for v, p in VARIANTS), *OUTPUTS, ("M", "rotary", {"head_bias": False})],
)
def test_precomputed_terms_do_not_change_the_output(
    variant: str, position: str, changes: dict[str, object]
) -> None:
    model = disturb(make(variant, position, **changes)).eval()
    z = torch.randn(5, 16)
    expected, got = model(z), InferenceHypernet(model)(z)
    for m in SPEC.modules:
        torch.testing.assert_close(got.a[m.name], expected.a[m.name], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got.b[m.name], expected.b[m.name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("variant", "position"), VARIANTS)
def test_bf16_heads_differ_by_rounding_only_and_not_between_batches(
    variant: str, position: str, bias: bool
) -> None:
    model = disturb(make(variant, position, head_bias=bias)).eval()
    network, z = InferenceHypernet(model, torch.bfloat16), torch.randn(6, 16)
    exact, batch = model(z), network(z)
    ulp = torch.finfo(torch.bfloat16).eps
    for i in range(6):
        single = network(z[i : i + 1])
        for batched, one, true in zip(batch, single, exact, strict=True):
            for name, got in batched.items():
                assert got.dtype == torch.bfloat16
                size = true[name].abs().max()
                # Sums in another order differ by up to one unit in the last place.
                assert (got[i] - one[name][0]).abs().max() <= ulp * size
                assert (got - true[name]).pow(2).mean().sqrt() <= 0.5 * ulp * size


@pytest.mark.parametrize(("variant", "position"), VARIANTS)
def test_output_depends_on_every_part_of_the_input(variant: str, position: str) -> None:
    """Adapters differ between descriptions, layers, ranks and modules, and A differs from B."""
    model = disturb(make(variant, position)).eval()
    a, b = model(torch.randn(2, 16))
    q, v = a["q_proj"], a["v_proj"]
    assert not torch.allclose(q[0], q[1])
    assert not torch.allclose(q[:, 0], q[:, 1])
    assert not torch.allclose(q[:, :, 0], q[:, :, 1])
    assert not torch.allclose(q, v)
    assert not torch.allclose(q, b["q_proj"].transpose(-1, -2))


@pytest.mark.parametrize(("variant", "position"), VARIANTS)
def test_initial_delta_w_is_negligible_and_has_gradients(variant: str, position: str) -> None:
    model = make(variant, position)
    batch = model(torch.randn(2, 16))
    for lora in batch.split(SPEC):
        for m in SPEC.modules:
            base_weight_deviation = m.in_features**-0.5
            assert lora.delta(m.name).std() < 0.05 * base_weight_deviation
            if variant in ("L", "L-rank"):
                assert lora.delta(m.name).abs().max() == 0
    x = {m.name: torch.randn(m.in_features) for m in SPEC.modules}
    loss = sum((batch.b[n] @ (batch.a[n] @ x[n][:, None])).sum() for n in x)
    loss.backward()
    assert all(
        head.weight.grad is not None and head.weight.grad.abs().max() > 0 for head in model.heads.values()
    )


def test_dropout_is_active_only_in_training() -> None:
    model = disturb(make("L", "rotary", dropout=0.5))
    z = torch.randn(1, 16)
    assert not torch.equal(model(z).a["q_proj"], model(z).a["q_proj"])
    model.eval()
    assert torch.equal(model(z).a["q_proj"], model(z).a["q_proj"])


def test_offset_z_score_and_delta_w_change_the_output_as_stated() -> None:
    z = torch.randn(1, 16)
    plain = disturb(make("M", "rotary")).eval()
    raw = plain(z).a["q_proj"]
    for output in ("offset", "z_score", "delta_w"):
        model = make("M", "rotary", output=output).eval()
        model.load_state_dict(plain.state_dict(), strict=False)
        if output == "offset":
            model.offset.A.get_buffer("q_proj").fill_(2.0)
            expected = raw + 2
        elif output == "z_score":
            model.mean.A.get_buffer("q_proj").fill_(1.0)
            model.deviation.A.get_buffer("q_proj").fill_(3.0)
            expected = raw * 3 + 1
        else:
            expected = raw / 100  # sqrt(10,000)
        torch.testing.assert_close(model(z).a["q_proj"], expected)


def test_rotary_embedding_keeps_norms_and_is_the_identity_at_position_zero() -> None:
    x = torch.randn(2, 1, 32)
    turned = apply_rotary(x, torch.arange(4))
    torch.testing.assert_close(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1).expand(2, 4))
