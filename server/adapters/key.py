"""Adapter ids: a keyed hash of what an adapter is made from.

Two replicas that would write the same weights agree on the id without talking,
and a replica with another checkpoint, base, encoder or rank never reads the
other's adapters. The hash is keyed so that somebody who sees ids (in logs, in
Redis) cannot test guesses at the descriptions behind them; replicas that share
a Redis must share the key.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

from hypernet.config import LoraSpec

ID_LENGTH = 32
"""Hex characters in an adapter id: 128 bits, so that collisions are no concern."""


def normalise(description: str) -> str:
    """The form of a description that is hashed, and that the encoder reads.

    Unicode NFC, because the same sentence arrives composed from one operating
    system and decomposed from another; whitespace runs become one space and the
    ends are stripped, because line wraps and indentation come from editors, not
    from the author. Case and punctuation stay, and so do compatibility
    characters (no NFKC: it would turn 2 superscript 3 into 23): the encoder
    reads them, so they may change the weights. Idempotent.
    """
    return " ".join(unicodedata.normalize("NFC", description).split())


def derive_key(secret: str, purpose: str) -> bytes:
    """A 32-byte key for one purpose, so that ids and checksums never share one."""
    return blake2b(secret.encode(), digest_size=32, person=purpose.encode()).digest()


class AdapterKeyer:
    """Computes adapter ids for one hypernetwork.

    Attributes:
        namespace: 16 hex characters that name this combination of key,
            hypernetwork, base, encoder and LoRA spec; replicas that share it can
            use each other's adapters.
    """

    def __init__(
        self, secret: str, *, hypernetwork: str, base_model: str, encoder: str, spec: LoraSpec
    ) -> None:
        hasher = blake2b(key=derive_key(secret, "t2l-adapter-id"), digest_size=ID_LENGTH // 2)
        for part in (hypernetwork, base_model, encoder, spec.model_dump_json()):
            encoded = part.encode()
            # Each part goes in behind its length, so that no two lists of parts look alike.
            hasher.update(len(encoded).to_bytes(8, "little") + encoded)
        self._prefix = hasher
        self.namespace = hasher.hexdigest()[:16]

    def __call__(self, description: str) -> str:
        """The id of the adapter for a normalised description."""
        hasher = self._prefix.copy()
        hasher.update(description.encode())
        return hasher.hexdigest()
