"""Adapters as bytes for Redis: a signed header, then the weights as one flat bf16 buffer.

    offset  size
    0       4     magic "T2LA"
    4       1     version
    5       4     H, length of the header, little endian
    9       H     header, JSON: id, description, created_us, spec, digest of the weights
    9+H     32    keyed BLAKE2b of everything before it
    41+H    rest  weights, bf16 little endian, in the order of LoraWeights.flatten

The header contains the digest of the weights. A header can therefore be verified without the
weights, which a listing does not need, and still every byte of the value is covered. Nothing from
Redis is trusted: the checksum, the id, the spec and every number are verified before an adapter is
built, and nothing is unpickled. Without `T2L_CACHE_KEY` a value cannot be forged or altered.
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
"""Enough for a spec and a description of 8,192 characters that JSON escapes one by one."""
_PREFIX = len(MAGIC) + 1 + 4
_DIGEST = 32


class CorruptAdapterError(ValueError):
    """Bytes that are not a complete adapter of this server's format, key and spec."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a stored adapter."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    id: str
    description: str
    created_us: int
    spec: LoraSpec
    weights_digest: str

    @property
    def info(self) -> AdapterInfo:
        """The adapter's metadata."""
        return AdapterInfo(self.id, self.description, self.created_us, self.spec)


_HEADER = TypeAdapter(Header)


class AdapterCodec:
    """Encodes and verifies adapters of one spec with one key. It hashes megabytes: run it in a
    thread.

    Attributes:
        spec: the LoRA spec that it accepts.
    """

    def __init__(self, key: bytes, spec: LoraSpec) -> None:
        self._key = key
        self.spec = spec

    @property
    def max_size(self) -> int:
        """Maximum number of bytes of an encoded adapter."""
        return _PREFIX + MAX_HEADER + _DIGEST + 2 * self.spec.num_parameters

    def encode(self, adapter: Adapter) -> bytes:
        """Encode an adapter for Redis."""
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
        """Verify and decode the value that is stored under an id.

        Raises:
            CorruptAdapterError: a byte is wrong, or the value is another adapter or has another
                spec.
        """
        header = self.decode_header(data)
        if header.id != adapter_id:
            raise CorruptAdapterError(f"the value under {adapter_id} is adapter {header.id}")
        if header.spec != self.spec:
            raise CorruptAdapterError("the adapter has a LoRA spec other than this server's")
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
        """Verify a header without the weights.

        Args:
            data: at least the first `header_size` bytes of a value.

        Raises:
            CorruptAdapterError: the header is truncated, or is not signed with this server's key.
        """
        end = header_size(data)
        if len(data) < end:
            raise CorruptAdapterError("the value ends within its header")
        head, checksum = data[: end - _DIGEST], data[end - _DIGEST : end]
        if not hmac.compare_digest(self._checksum(head), checksum):
            raise CorruptAdapterError(
                "the header's checksum is wrong, or the value was written with another T2L_CACHE_KEY"
            )
        try:
            return _HEADER.validate_json(head[_PREFIX:])
        except ValidationError as error:
            raise CorruptAdapterError("the header is signed, but has an unknown format") from error

    def _checksum(self, head: bytes) -> bytes:
        return blake2b(head, key=self._key, digest_size=_DIGEST).digest()


def header_size(data: bytes) -> int:
    """Number of bytes before the weights of a value. The first nine bytes of the value give it.

    Raises:
        CorruptAdapterError: the value does not start like an adapter of this version.
    """
    if len(data) < _PREFIX or data[: len(MAGIC)] != MAGIC:
        raise CorruptAdapterError("the value does not start like an adapter")
    if data[len(MAGIC)] != VERSION:
        raise CorruptAdapterError(f"the value has version {data[len(MAGIC)]}, this server reads {VERSION}")
    length = int.from_bytes(data[len(MAGIC) + 1 : _PREFIX], "little")
    if length > MAX_HEADER:
        raise CorruptAdapterError(f"the header has {length} bytes, more than the maximum of {MAX_HEADER}")
    return _PREFIX + length + _DIGEST


def _digest(weights: memoryview) -> str:
    return blake2b(weights, digest_size=_DIGEST).hexdigest()


def _swap_on_big_endian(weights: memoryview) -> memoryview:
    if sys.byteorder == "little":
        return weights
    swapped = bytearray(weights)
    swapped[0::2], swapped[1::2] = swapped[1::2], swapped[0::2]
    return memoryview(swapped)
