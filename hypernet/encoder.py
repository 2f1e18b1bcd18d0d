"""Descriptions in, vectors out: the sentence encoder in front of the hypernetwork.

Every embedding is scaled to unit norm times sqrt(dimension), so that its entries
have the variance that the first linear layer expects, whichever encoder made it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hypernet.base_model import fingerprint
from hypernet.embedded import ENCODER_NAME
from hypernet.models import encoder_folder


class Encoder:
    """A sentence-transformers model with the normalisation that hypernetworks are trained on."""

    def __init__(self, folder: Path, name: str, device: str = "cpu") -> None:
        from sentence_transformers import SentenceTransformer  # slow to import: only those who encode pay
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # loading takes a moment; its bar would stand in every server's log

        self.name = name
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._model.eval()
        self.size: int = self._model.get_embedding_dimension()
        self.fingerprint = fingerprint(folder)
        # gte-large-en-v1.5 was used on whole sentences: the reference ends a text that ends in a letter.
        self._ends_sentences = "gte-" in self.name

    @classmethod
    def load(cls, name: str | None = None, device: str = "cpu") -> Encoder:
        """Load an encoder.

        Args:
            name: a folder, a hub id, or None (or the name itself) for the embedded all-MiniLM-L6-v2.
            device: a torch device.
        """
        folder = encoder_folder(name)
        return cls(folder, ENCODER_NAME if name is None else name, device)

    def encode(self, descriptions: list[str]) -> Tensor:
        """Embed descriptions, in fp32 on the CPU. [n, e], each row of norm sqrt(e)."""
        if self._ends_sentences:
            descriptions = [text + "." if text[-1:].isalpha() else text for text in descriptions]
        with torch.inference_mode():
            unit: Tensor = self._model.encode(
                descriptions,
                batch_size=64,
                normalize_embeddings=True,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        # Cloned outside inference mode: a training step may need it in its graph.
        scaled: Tensor = unit.clone().float().cpu() * self.size**0.5
        return scaled
