"""Texts -> adapters, by the hypernetwork in training."""

from __future__ import annotations

from hypernet.encoder import Encoder
from hypernet.lora import LoraBatch
from hypernet.model import Hypernet
from hypernet.training.embedding_cache import EmbeddingCache


class AdapterSource:
    """Embeds texts and generates their adapters, with a gradient down to the hypernetwork's
    weights.

    Args:
        encoder: embeds the texts; each text once.
        model: the hypernetwork.
        device: where the hypernetwork is.
    """

    def __init__(self, encoder: Encoder, model: Hypernet, device: str) -> None:
        self.embed, self._model, self._device = EmbeddingCache(encoder), model, device

    def __call__(self, texts: list[str]) -> LoraBatch:
        """One adapter for each text."""
        adapters: LoraBatch = self._model(self.embed(texts).to(self._device))
        return adapters
