"""vLLM's own norm kernels against their definition, and the arguments that they do not support."""

from __future__ import annotations

import pytest
import torch

from server.engine.patches import cpu_ops

vllm = pytest.importorskip("vllm")


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    """Load `torch.ops._C`."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("kernels of the CPU build")
    current_platform.import_kernels()


def defined(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7])
def test_norms_match_their_definition(dtype: torch.dtype, tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x, residual = (torch.randn(tokens, 576, generator=generator).to(dtype) for _ in range(2))
    weight = torch.rand(576, generator=generator).to(dtype)
    close = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-6}
    torch.testing.assert_close(cpu_ops.rms_norm(x, weight, 1e-5).double(), defined(x, weight), **close)

    summed = x.float() + residual.float()
    normed, left = cpu_ops.fused_add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(left, summed.to(dtype))
    assert left is residual
    assert normed is x  # in place, as registered
    torch.testing.assert_close(normed.double(), defined(summed, weight), **close)


def test_unsupported_arguments_are_left_to_vllm() -> None:
    x, weight = torch.ones(2, 4), torch.ones(4)
    assert cpu_ops._supports(x, weight, 1e-5)
    assert not cpu_ops._supports(x, None, 1e-5)
    assert not cpu_ops._supports(x, weight.bfloat16(), 1e-5)
    assert not cpu_ops._supports(x, weight, 1e-5, variance_size=2)
    assert not cpu_ops._supports(x.T, weight, 1e-5)
    assert not cpu_ops._supports_fused(x, x.T, weight, 1e-5)
