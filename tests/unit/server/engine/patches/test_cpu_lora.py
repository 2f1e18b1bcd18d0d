"""The CPU LoRA operator against vLLM's own where that is right, and against unchanged rows
elsewhere.

Every property is tested with matrix products and with the native kernel.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from server.engine.patches import cpu_lora, native_kernel
from tests.support.programs import require_program

pytest.importorskip("vllm")


def vllm_wrapper(indices: Tensor, prefill: bool) -> Any:
    """vLLM's wrapper with the metadata of a step."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    wrapper = PunicaWrapperCPU(max(64, len(indices)), 64, "cpu")
    wrapper._token_lora_indices[: len(indices)] = indices
    wrapper.indices_len[0] = len(indices)
    wrapper.is_prefill = prefill
    if prefill:
        wrapper._update_prefill_metadata(wrapper.token_lora_indices)
    return wrapper


def vllm_add_lora(y: Tensor, x: Tensor, a: Any, b: Any, indices: Tensor, prefill: bool) -> Tensor:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    y = y.clone()
    add = inspect.unwrap(PunicaWrapperCPU.add_lora_linear)
    add(vllm_wrapper(indices, prefill), y, x, a, b, 1.0, tuple(t.shape[2] for t in b))
    return y


Kernel = Callable[[Tensor, Tensor, Any, Any, Tensor], Tensor]


@pytest.fixture(params=["products", "native"], scope="module")
def operator(request: pytest.FixtureRequest) -> Kernel:
    """The operator with one of its two implementations."""
    kernel = None
    if request.param == "native":
        require_program("g++")
        kernel = native_kernel.load_kernel()
        assert kernel is not None

    def add(y: Tensor, x: Tensor, a: Any, b: Any, indices: Tensor) -> Tensor:
        y = y.clone()
        if rows := cpu_lora.map_tokens_to_slots(indices, kernel):
            cpu_lora.add_lora(y, x, a, b, 1.0, rows)
        return y

    return add


@st.composite
def layers(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...], int]:
    """A packed linear layer with random slots: y, x, A, B and the number of slots."""
    slots, rank, size = (
        draw(st.integers(1, 9)),
        draw(st.sampled_from([1, 4, 6, 8, 64])),
        draw(st.integers(1, 70)),
    )
    outs = draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    empty = draw(st.sets(st.sampled_from(range(len(outs)))))
    tokens, dtype = draw(st.integers(1, 40)), draw(st.sampled_from([torch.bfloat16, torch.float32]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    a = tuple(random(slots, 1, rank, size) for _ in outs)
    b = tuple(torch.zeros(slots, 1, o, rank, dtype=dtype) if i in empty else random(slots, 1, o, rank)
              for i, o in enumerate(outs))  # fmt: skip
    return random(tokens, sum(outs)), random(tokens, size), a, b, slots


def close(actual: Tensor, expected: Tensor, y: Tensor, x: Tensor, a: Any, b: Any, indices: Tensor) -> None:
    """Assert equality up to rounding, relative to the sum of absolute values."""
    summed = vllm_add_lora(y.abs(), x.abs(), [t.abs() for t in a], [t.abs() for t in b], indices, prefill=True)
    terms = x.shape[1] + a[0].shape[2] + 1  # rounding errors of a sum grow with the square root of its length
    eps = 4 * torch.finfo(y.dtype).eps + terms**0.5 * torch.finfo(torch.float32).eps
    assert bool(((actual.double() - expected.double()).abs() <= eps * summed.double()).all())


@settings(max_examples=100, deadline=None)
@given(layer=layers(), data=st.data(), prefill=st.booleans(), pack=st.booleans())
def test_result_equals_vllms_operator_if_every_row_has_an_adapter(
    operator: Kernel, layer: Any, data: st.DataObject, prefill: bool, pack: bool
) -> None:
    y, x, a, b, slots = layer
    indices = torch.tensor(data.draw(st.lists(st.integers(0, slots - 1), min_size=len(x), max_size=len(x))))
    expected = vllm_add_lora(y, x, a, b, indices, prefill)
    actual = operator(y, x, a, tuple(map(cpu_lora.to_rank_major, b)) if pack else b, indices)
    close(actual, expected, y, x, a, b, indices)


@settings(max_examples=100, deadline=None)
@given(layer=layers(), data=st.data())
def test_rows_without_an_adapter_are_unchanged_bit_for_bit(
    operator: Kernel, layer: Any, data: st.DataObject
) -> None:
    y, x, a, b, slots = layer
    indices = torch.tensor(data.draw(st.lists(st.integers(-1, slots - 1), min_size=len(x), max_size=len(x))))
    actual = operator(y, x, a, b, indices)
    base = indices < 0
    assert torch.equal(actual[base], y[base])
    if (~base).any():
        adapted = y[~base], x[~base], a, b, indices[~base]
        close(actual[~base], vllm_add_lora(*adapted, prefill=True), *adapted)


@settings(max_examples=50, deadline=None)
@given(layer=layers(), data=st.data())
def test_other_slots_do_not_affect_a_row(operator: Kernel, layer: Any, data: st.DataObject) -> None:
    """Not even infinite weights, which a multiplication by zero would turn into NaN."""
    y, x, a, b, slots = layer
    slot = data.draw(st.integers(-1, slots - 1))
    other = data.draw(
        st.integers(0, slots - 1).filter(lambda s: s != slot) if slots > 1 or slot < 0 else st.none()
    )
    if other is None:
        return
    indices = torch.full((len(x),), slot)
    indices[-1] = other
    expected = operator(y, x, a, b, indices)[:-1]
    for a_slice in a:
        a_slice[other] = torch.inf
    assert torch.equal(operator(y, x, a, b, indices)[:-1], expected)


def test_vllms_operator_still_gives_a_base_row_the_last_slots_adapter(operator: Kernel) -> None:
    """The fault that the patch repairs.

    If this test fails, vLLM has fixed it, and the patch can be removed.
    """
    y, x = torch.zeros(2, 3), torch.ones(2, 4)
    a, b = (torch.ones(2, 1, 1, 4),), (torch.ones(2, 1, 3, 1),)
    indices = torch.tensor([-1, 0])
    assert vllm_add_lora(y, x, a, b, indices, prefill=True)[0].any()
    assert not operator(y, x, a, b, indices)[0].any()


def test_step_without_adapters_has_no_mapping() -> None:
    assert cpu_lora.map_tokens_to_slots(torch.tensor([-1, -1]), None) is None
    assert cpu_lora.map_tokens_to_slots(torch.tensor([], dtype=torch.long), None) is None


def test_mapping_covers_only_the_range_of_used_slots() -> None:
    rows = cpu_lora.map_tokens_to_slots(torch.tensor([5, -1, 3]), None)
    assert rows is not None
    assert rows.slot_range == slice(3, 6)
    assert rows.mask(1).tolist() == [[True, True, False], [True] * 3, [False, True, True]]
    assert rows.mask(2)[0].tolist() == [True] * 4 + [False] * 2
    assert (rows.adapted_tokens.tolist(), rows.adapted_slots.tolist()) == ([2, 0], [3, 5])


def test_rank_major_layout_keeps_values_and_allows_writes_in_place() -> None:
    b = torch.randn(3, 1, 5, 2)
    packed = cpu_lora.to_rank_major(b)
    assert torch.equal(packed, b)
    (part,) = cpu_lora.layer_weights((torch.zeros(3, 1, 2, 4),), (packed,)).for_slots(slice(1, 3))
    packed[1, 0, :5, :2].copy_(torch.ones(5, 2))
    assert part.up.shape == (4, 5)
    assert part.up[:2].eq(1).all()


def test_copied_weights_are_not_cached() -> None:
    a, b = (torch.zeros(2, 1, 2, 4),), (torch.zeros(2, 1, 3, 2),)
    b[0][0] = 1
    assert not cpu_lora.layer_weights(a, b).used[0].up[2:].any()
    b[0][1] = 1
    assert cpu_lora.layer_weights(a, b).used[0].up[2:].eq(1).all()


def test_views_are_cached_per_range_of_slots() -> None:
    a, b = (torch.zeros(2, 1, 2, 4),), (cpu_lora.to_rank_major(torch.ones(2, 1, 3, 2)),)
    first = cpu_lora.layer_weights(a, b)
    assert cpu_lora.layer_weights(a, b) is first
    assert first.for_slots(slice(0, 2)) is first.for_slots(slice(0, 2))
    assert first.for_slots(slice(1, 2))[0].down.shape == (2, 4)


def test_slice_is_used_from_its_first_adapter_on() -> None:
    a = (torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4))
    b = (cpu_lora.to_rank_major(torch.ones(2, 1, 3, 1)), cpu_lora.to_rank_major(torch.zeros(2, 1, 3, 1)))
    assert [part.start for part in cpu_lora.layer_weights(a, b).used] == [0]
    b[1][1] = 1
    assert [part.start for part in cpu_lora.layer_weights(a, b).used] == [0, 3]
    b[1][1] = 0
    assert [part.start for part in cpu_lora.layer_weights(a, b).used] == [0, 3]


def test_native_kernel_rounds_as_torch() -> None:
    """Every bf16 value plus one: includes ties, infinities and NaNs."""
    require_program("g++")
    kernel = native_kernel.load_kernel()
    assert kernel is not None
    y = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).view(1, -1)
    x = torch.tensor([[1.0, 2.0**-9]], dtype=torch.bfloat16)
    a = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16)  # h = 1 + half a unit in its last place
    b = torch.ones(1, y.shape[1], dtype=torch.bfloat16)
    expected = (y.float() + 1.0).bfloat16()
    table = native_kernel.LayerDescriptor([(0, a, b, 1)])
    row = torch.zeros(1, dtype=torch.long)
    assert kernel.add_lora(y, x, table, row, row, 1.0)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


def test_unsupported_tensors_are_left_to_matrix_products() -> None:
    require_program("g++")
    kernel = native_kernel.load_kernel()
    assert kernel is not None
    row, half = torch.zeros(1, dtype=torch.long), torch.ones(1, 4, dtype=torch.float16)
    single, wide = torch.ones(1, 4), torch.ones(600, 4)
    for a, b, x in (
        (half, half, half),  # an unsupported dtype
        (single, single, half),  # two dtypes
        (wide, wide, single),  # a rank above the maximum
        (single, single, torch.ones(1, 8)[:, ::2]),  # rows that are not contiguous
    ):
        y = torch.zeros(1, 4, dtype=x.dtype)
        assert not kernel.add_lora(y, x, native_kernel.LayerDescriptor([(0, a, b, len(a))]), row, row, 1.0)
        assert not y.any()


def test_no_kernel_without_a_compiler_or_if_compiling_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    find = native_kernel.load_kernel.__wrapped__
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert find() is None
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/false")
    assert find() is None
