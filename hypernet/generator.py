"""The server's only door to the science: a checkpoint folder in, adapters for descriptions out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hypernet import checkpoint
from hypernet.config import LoraSpec
from hypernet.encoder import Encoder, encoder_name_for
from hypernet.errors import T2lError
from hypernet.inference.batch_buckets import ForwardFn, compile_buckets
from hypernet.inference.network import InferenceHypernet
from hypernet.lora import LoraBatch, LoraWeights


class MismatchError(T2lError):
    """The encoder or base model is not the one that the hypernetwork was trained with."""


def check_encoder(folder: Path, config: checkpoint.CheckpointConfig, encoder: Encoder) -> None:
    """Refuse an encoder that a checkpoint was not trained with.

    Raises:
        MismatchError: naming both.
    """
    if encoder.fingerprint != config.encoder.fingerprint:
        raise MismatchError(
            f"{folder} was trained with encoder {config.encoder.name} ({config.encoder.fingerprint}), "
            f"not with {encoder.name} ({encoder.fingerprint}): its adapters would be meaningless. "
            f"Name the right one with --encoder"
        )


class Generator:
    """Writes adapters for batches of descriptions. Synchronous and not thread-safe: give it one thread.

    Attributes:
        spec: shape and scale of every adapter it writes.
        fingerprint: identity of the hypernetwork (architecture and weights).
        base_fingerprint: identity of the base model it writes adapters for.
        base_model_name: name of that base model, as its checkpoint has it.
        encoder_fingerprint: identity of the encoder that embeds descriptions.
    """

    def __init__(
        self, folder: Path, encoder: Encoder, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        model, config = checkpoint.load_checkpoint(folder)
        check_encoder(folder, config, encoder)
        self._model: ForwardFn = InferenceHypernet(model.to(device), dtype)
        self._device = device
        self._encoder = encoder
        self.spec: LoraSpec = config.hypernet.lora
        self.fingerprint = checkpoint.fingerprint(folder)
        self.base_fingerprint = config.base_model.fingerprint
        self.base_model_name = config.base_model.name
        self.encoder_fingerprint = encoder.fingerprint

    @classmethod
    def load(
        cls,
        folder: Path,
        encoder: str | None = None,
        device: str = "cpu",
        base_model: str | None = None,
        dtype: torch.dtype = torch.float32,
        cache_dir: Path | None = None,
    ) -> Generator:
        """Load a checkpoint folder and its encoder.

        Args:
            folder: a checkpoint (`config.json`, `hypernet.safetensors`).
            encoder: as `Encoder.load` takes it. None is the base model for a checkpoint that was trained
                with it, else the embedded all-MiniLM-L6-v2.
            device: where the hypernetwork and the encoder run.
            base_model: what the encoder `base-model` stands for; None is the embedded one.
            dtype: dtype of the sentence encoder and of the heads (see `InferenceHypernet`). The engine rounds
                adapters to bf16, so the machine's fastest dtype is precise enough for a server.
            cache_dir: folder for the unpacked base model; see `model_paths.base_model_folder`.

        Raises:
            CheckpointError: the folder is not a whole checkpoint.
            MismatchError: the encoder is not the one it was trained with.
            ModelNotFoundError: the encoder's name leads nowhere, or it is not used as it was named.
        """
        name = encoder_name_for(encoder, checkpoint.load_config(folder).encoder.name)
        return cls(folder, Encoder.load(name, device, base_model, dtype, cache_dir), device, dtype)

    def check_base_model(self, name: str, fingerprint: str) -> None:
        """Refuse a base model that adapters were not written for.

        Raises:
            MismatchError: naming both.
        """
        if fingerprint != self.base_fingerprint:
            raise MismatchError(
                f"the hypernetwork writes adapters for {self.base_model_name} ({self.base_fingerprint}), "
                f"not for {name} ({fingerprint}). Name the right one with --base-model"
            )

    def compile(self, max_batch: int) -> None:
        """Fuse the hypernetwork's small kernels (see `batch_buckets`). Takes a minute or two.

        Args:
            max_batch: the most descriptions that come at once.
        """
        sizes = tuple(sorted({1, min(8, max_batch), max_batch}))
        self._model = compile_buckets(self._model, self.embed(["warm up"]).to(self._device), sizes)

    def generate(self, descriptions: list[str]) -> list[LoraWeights]:
        """One adapter per description, from one batched pass."""
        return self.generate_from_embeddings(self.embed(descriptions))

    def embed(self, descriptions: list[str]) -> Tensor:
        """Descriptions -> [n, e]."""
        return self._encoder.encode(descriptions)

    def generate_from_embeddings(self, embeddings: Tensor) -> list[LoraWeights]:
        """[n, e] -> n adapters, in the dtype of the heads."""
        return self.forward(embeddings).split(self.spec)

    def forward(self, embeddings: Tensor) -> LoraBatch:
        """[n, e] -> n adapters in one value, as `FrozenBase` takes them."""
        return self._model(embeddings.to(self._device))
