"""Embeddings of the texts of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from hypernet.encoder import Encoder


class EmbeddingCache:
    """Embeds each text once.

    Encoding all paraphrases ahead would take longer than many short runs.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        """[n, e]."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, self._encoder.encode(fresh), strict=True))
        return torch.stack([self._known[text] for text in texts])
