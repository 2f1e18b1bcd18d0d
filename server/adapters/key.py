"""Adapter ids: a keyed hash of everything that determines an adapter's weights.

Replicas that would generate the same weights compute the same id. A replica with another
checkpoint, base model, encoder or LoRA spec computes other ids, so that it never reads their
adapters. Without the key, a reader of ids in logs or in Redis could test guesses at descriptions.
Replicas that share a Redis must share the key.

A description enters the hash as the encoder's tokens. Descriptions that the encoder cannot tell
apart would get equal weights, so they share one id.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

from hypernet.config import LoraSpec

ID_LENGTH = 32
"""Hex characters in an adapter id: 128 bits make a collision practically impossible."""


def derive_key(secret: str, purpose: str) -> bytes:
    """Derive a 32-byte key for one purpose, so that ids and checksums have different keys."""
    return blake2b(secret.encode(), digest_size=32, person=purpose.encode()).digest()


class AdapterKeyer:
    """Computes adapter ids for one hypernetwork.

    Attributes:
        namespace: 16 hex characters that identify the combination of key, hypernetwork, base model,
            encoder and LoRA spec. Replicas with the same namespace can use each other's adapters.
    """

    def __init__(
        self, secret: str, *, hypernetwork: str, base_model: str, encoder: str, spec: LoraSpec
    ) -> None:
        hasher = blake2b(key=derive_key(secret, "t2l-adapter-id"), digest_size=ID_LENGTH // 2)
        for part in (hypernetwork, base_model, encoder, spec.model_dump_json()):
            encoded = part.encode()
            # Each part is preceded by its length, so that different lists of parts have different
            # hashes.
            hasher.update(len(encoded).to_bytes(8, "little") + encoded)
        self._prefix = hasher
        self.namespace = hasher.hexdigest()[:16]

    def __call__(self, token_ids: Sequence[int]) -> str:
        """The adapter id of a description with these tokens (`PreparedDescription.token_ids`)."""
        hasher = self._prefix.copy()
        hasher.update(struct.pack(f"<{len(token_ids)}I", *token_ids))
        return hasher.hexdigest()
