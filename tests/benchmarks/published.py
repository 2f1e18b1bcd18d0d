"""The procedure of the published method: one description at a time, module by module, into files.

For each description, it embeds the description, runs one pass over the layers for each module,
copies A and B of every layer, and writes safetensors and JSON.
"""

from __future__ import annotations

from pathlib import Path

import torch

from hypernet import checkpoint
from hypernet.encoder import Encoder
from hypernet.lora import LoraWeights
from hypernet.peft_io import save_adapter


class PublishedGenerator:
    """The hypernetwork of a checkpoint, run by the published procedure."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self._model, config = checkpoint.load_checkpoint(folder)
        self._model.eval()
        self.spec = config.hypernet.lora
        self._encoder = encoder

    @torch.inference_mode()
    def generate(self, description: str, folder: Path) -> None:
        """Generate the adapter of one description and write its PEFT folder."""
        net, layers = self._model, self.spec.num_layers
        embedding = self._encoder.encode([description])  # [1, e]
        a, b = {}, {}
        for i, module in enumerate(self.spec.modules):
            task = net.task(embedding).expand(layers, -1)  # [L, d/2]
            depth = net.depth(torch.arange(layers))  # [L, d/4]
            kind = net.kind(torch.full((layers,), i))  # [L, d/4]
            x = net.mixer(torch.cat([task, depth, kind], dim=-1))  # [L, d]
            h1 = (x + net.block1(x))[None]  # [1, L, d]
            y = net.head(module)(net.block3(net._add_part_embeddings(h1, module.name)))
            pair = net._to_lora(module, *net._split_ab(module, y))
            a[module.name], b[module.name] = (
                torch.stack([t[0, layer].contiguous().clone() for layer in range(layers)]) for t in pair
            )
        save_adapter(folder, LoraWeights(self.spec, a, b), "base")
