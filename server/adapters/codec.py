"""Adapters as bytes for Redis: a signed header, then the weights as one flat bf16 buffer.

    offset  size
    0       4     magic "T2LA"
    4       1     version
    5       4     H, length of the header, little endian
    9       H     header, JSON: id, description, created_us, spec, digest of the weights
    9+H     32    keyed BLAKE2b of everything before it
    41+H    rest  weights, bf16 little endian, in the order of LoraWeights.flatten

The header vouches for the weights through their digest, so that it can be read
and trusted alone (a listing needs no weights) while every single byte is still
covered. Nothing read from Redis is believed: the checksum, the id, the spec and
every number are verified before an adapter is built, and nothing is unpickled.
Whoever knows no `T2L_CACHE_KEY` can neither forge nor alter a value.
"""

from __future__ import annotations

import hmac
import json
import sys
from dataclasses import dataclass
from hashlib import blake2b

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hypernet.config import LoraSpec
from hypernet.lora import InvalidLoraError, LoraWeights
from server.adapters.adapter import Adapter, AdapterInfo

MAGIC = b"T2LA"
VERSION = 1
MAX_HEADER = 1 << 17
"""More than 8,192 characters of UTF-8 with every character escaped, and a spec beside them."""
_PREFIX = len(MAGIC) + 1 + 4
_DIGEST = 32


class CorruptAdapterError(ValueError):
    """Bytes that are not a whole adapter of ours."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a stored adapter says about itself."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    id: str
    description: str
    created_us: int
    spec: LoraSpec
    weights_digest: str

    @property
    def info(self) -> AdapterInfo:
        """What it says, without how the weights are checked."""
        return AdapterInfo(self.id, self.description, self.created_us, self.spec)


_HEADER = TypeAdapter(Header)


class AdapterCodec:
    """Encodes and verifies adapters of one spec with one key. Work for a thread: it hashes megabytes.

    Attributes:
        spec: the only LoRA spec that it accepts.
    """

    def __init__(self, key: bytes, spec: LoraSpec) -> None:
        self._key = key
        self.spec = spec

    @property
    def max_size(self) -> int:
        """No adapter of this spec takes more bytes than this."""
        return _PREFIX + MAX_HEADER + _DIGEST + 2 * self.spec.num_parameters

    def encode(self, adapter: Adapter) -> bytes:
        """Bytes to store."""
        weights = _swap_on_big_endian(adapter.weights.flatten().view(torch.uint8).numpy().data)
        header = json.dumps(
            {
                "id": adapter.id,
                "description": adapter.description,
                "created_us": adapter.created_us,
                "spec": adapter.spec.model_dump(mode="json"),
                "weights_digest": _digest(weights),
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        head = MAGIC + bytes([VERSION]) + len(header).to_bytes(4, "little") + header
        return b"".join((head, self._checksum(head), weights))

    def decode(self, data: bytes, adapter_id: str) -> Adapter:
        """Verify in full what was stored under an id.

        Raises:
            CorruptAdapterError: any byte is wrong, or it is another adapter, or one of another spec.
        """
        header = self.decode_header(data)
        if header.id != adapter_id:
            raise CorruptAdapterError(f"the value under {adapter_id} is adapter {header.id}")
        if header.spec != self.spec:
            raise CorruptAdapterError("the adapter has another LoRA spec")
        weights = memoryview(data)[header_size(data) :]
        if not hmac.compare_digest(_digest(weights), header.weights_digest):
            raise CorruptAdapterError("the weights do not match their digest")
        try:
            flat = torch.frombuffer(bytearray(_swap_on_big_endian(weights)), dtype=torch.bfloat16)
            lora = LoraWeights.unflatten(self.spec, flat)
            lora.validate()
        except (InvalidLoraError, ValueError) as error:
            raise CorruptAdapterError(f"the weights are unusable: {error}") from error
        return Adapter(header.id, header.description, header.created_us, lora)

    def decode_header(self, data: bytes) -> Header:
        """Verify a header alone; `data` is at least the first `header_size` bytes.

        Raises:
            CorruptAdapterError: the header is not whole, or not signed with our key.
        """
        end = header_size(data)
        if len(data) < end:
            raise CorruptAdapterError("the value ends within its header")
        head, checksum = data[: end - _DIGEST], data[end - _DIGEST : end]
        if not hmac.compare_digest(self._checksum(head), checksum):
            raise CorruptAdapterError("the header's checksum is wrong")
        try:
            return _HEADER.validate_json(head[_PREFIX:])
        except ValidationError as error:
            raise CorruptAdapterError("the header is signed but not understood") from error

    def _checksum(self, head: bytes) -> bytes:
        return blake2b(head, key=self._key, digest_size=_DIGEST).digest()


def header_size(data: bytes) -> int:
    """Bytes from the start of a value to its weights, as its first nine bytes announce.

    Raises:
        CorruptAdapterError: it does not start like an adapter of this version.
    """
    if len(data) < _PREFIX or data[: len(MAGIC)] != MAGIC:
        raise CorruptAdapterError("the value does not start like an adapter")
    if data[len(MAGIC)] != VERSION:
        raise CorruptAdapterError(f"the value has version {data[len(MAGIC)]}, this server reads {VERSION}")
    length = int.from_bytes(data[len(MAGIC) + 1 : _PREFIX], "little")
    if length > MAX_HEADER:
        raise CorruptAdapterError("the header is longer than any of ours")
    return _PREFIX + length + _DIGEST


def _digest(weights: memoryview) -> str:
    return blake2b(weights, digest_size=_DIGEST).hexdigest()


def _swap_on_big_endian(weights: memoryview) -> memoryview:
    if sys.byteorder == "little":
        return weights
    swapped = bytearray(weights)
    swapped[0::2], swapped[1::2] = swapped[1::2], swapped[0::2]
    return memoryview(swapped)
