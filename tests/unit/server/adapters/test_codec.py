import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypernet.lora import LoraWeights
from server.adapters.adapter import Adapter
from server.adapters.codec import MAGIC, AdapterCodec, CorruptAdapterError, header_size
from server.errors import AdapterRejectedError
from tests.support.server_fakes import SPEC, adapter_for, weights_for

CODEC = AdapterCodec(b"k" * 32, SPEC)
ADAPTER = adapter_for("Say the opposite.")
DATA = CODEC.encode(ADAPTER)

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(printable, st.integers(0, 2**60))
def test_decoding_inverts_encoding(description, created_us):
    adapter = adapter_for(description, created_us=created_us)
    back = CODEC.decode(CODEC.encode(adapter), adapter.id)
    assert back.info == adapter.info
    assert back.weights.flatten().equal(adapter.weights.flatten())


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_corrupt_byte_is_detected(position, change):
    data = bytearray(DATA)
    data[position] ^= change
    with pytest.raises(CorruptAdapterError):
        CODEC.decode(bytes(data), ADAPTER.id)


@given(st.integers(0, len(DATA) - 1))
def test_any_truncation_is_detected(length):
    with pytest.raises(CorruptAdapterError):
        CODEC.decode(DATA[:length], ADAPTER.id)


@given(st.binary(min_size=1, max_size=40))
def test_anything_appended_is_detected(more):
    with pytest.raises(CorruptAdapterError):
        CODEC.decode(DATA + more, ADAPTER.id)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    for given_data in (data, MAGIC + b"\x01" + data):
        with pytest.raises(CorruptAdapterError):
            CODEC.decode(given_data, ADAPTER.id)


def test_adapter_with_another_id_is_refused():
    with pytest.raises(CorruptAdapterError, match="is adapter"):
        CODEC.decode(DATA, "0" * 32)


def test_another_spec_is_refused():
    other = SPEC.model_copy(update={"rank": 3})
    data = AdapterCodec(b"k" * 32, other).encode(adapter_for("Say the opposite.", spec=other))
    with pytest.raises(CorruptAdapterError, match="spec"):
        CODEC.decode(data, ADAPTER.id)


def test_value_signed_with_another_key_is_refused():
    with pytest.raises(CorruptAdapterError, match="checksum"):
        AdapterCodec(b"x" * 32, SPEC).decode(DATA, ADAPTER.id)


def test_another_version_is_refused_by_number():
    with pytest.raises(CorruptAdapterError, match="version 2"):
        CODEC.decode(DATA[:4] + b"\x02" + DATA[5:], ADAPTER.id)


def test_signed_weights_with_infinite_values_are_refused():
    weights = weights_for("x").to(torch.bfloat16)
    weights.b["v_proj"][0, 0, 0] = float("inf")
    data = CODEC.encode(Adapter("0" * 32, "x", 1, weights))
    with pytest.raises(CorruptAdapterError, match="unusable"):
        CODEC.decode(data, "0" * 32)


def test_signed_header_with_an_unknown_field_is_refused():
    class Later(AdapterCodec):
        def encode_header(self) -> bytes:
            size = header_size(DATA)
            header = json.dumps(json.loads(DATA[9 : size - 32]) | {"new": 1}).encode()
            head = MAGIC + b"\x01" + len(header).to_bytes(4, "little") + header
            return head + self._checksum(head) + DATA[size:]

    with pytest.raises(CorruptAdapterError, match="unknown format"):
        CODEC.decode(Later(b"k" * 32, SPEC).encode_header(), ADAPTER.id)


def test_header_is_readable_without_the_weights():
    header = CODEC.decode_header(DATA[: header_size(DATA)])
    assert header.info == ADAPTER.info


def test_longest_value_is_within_the_read_limit():
    longest = adapter_for("\U0001f600" * 8192)
    assert len(CODEC.encode(longest)) <= CODEC.max_size


def test_non_finite_weights_are_rejected():
    weights = weights_for("x")
    weights.a["q_proj"][0, 0, 0] = float("nan")
    with pytest.raises(AdapterRejectedError, match=r"q_proj\.A"):
        Adapter.from_weights("0" * 32, "x", 1, weights)


def test_values_that_overflow_in_bf16_are_rejected():
    weights = weights_for("x")
    weights.a["q_proj"][0, 0, 0] = 3.4e38
    with pytest.raises(AdapterRejectedError):
        Adapter.from_weights("0" * 32, "x", 1, weights)


def test_adapter_is_one_flat_buffer():
    weights: LoraWeights = ADAPTER.weights
    tensors = [*weights.a.values(), *weights.b.values()]
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == 1
    assert ADAPTER.nbytes == 2 * SPEC.num_parameters == ADAPTER.info.nbytes
