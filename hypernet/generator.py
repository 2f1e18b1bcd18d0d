"""Generates adapters from descriptions with a checkpoint.

The server uses the package through this class.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from hypernet import checkpoint
from hypernet.base_model import fingerprint, lora_spec
from hypernet.checkpoint import ModelIdentity
from hypernet.config import LoraSpec
from hypernet.description_format import sentence_format
from hypernet.description_tokenizer import PreparedDescription
from hypernet.encoder import BASE_MODEL, LAST_TOKEN_PREFIX, Encoder, encoder_name_for
from hypernet.errors import T2lError
from hypernet.inference.batch_buckets import ForwardFn, compile_buckets
from hypernet.inference.network import InferenceHypernet
from hypernet.lora import LoraBatch, LoraWeights
from hypernet.model_paths import model_name

log = logging.getLogger(__name__)


class MismatchError(T2lError):
    """An encoder or base model that the hypernetwork was not trained with."""


def check_encoder(folder: Path, config: checkpoint.CheckpointConfig, encoder: Encoder) -> None:
    """Refuse an encoder that a checkpoint was not trained with.

    A checkpoint that was imported without the encoder's weights records only a name. Then the size
    of embeddings and the preparation of descriptions must agree, and another name is logged.

    Raises:
        MismatchError: naming both.
    """
    trained, given = config.encoder, ModelIdentity(name=encoder.name, fingerprint=encoder.fingerprint)
    if trained.fingerprint == given.fingerprint:
        return
    if trained.fingerprint is not None or not _may_be_same_encoder(trained.name, encoder, config):
        raise MismatchError(
            f"{folder} was trained with encoder {trained}, not with {given}: its adapters would be "
            f"meaningless. Name the right one with --encoder"
        )
    if _short_name(trained.name) != _short_name(given.name):
        log.warning("%s was trained with encoder %s; it is used with %s", folder, trained, given)


def _may_be_same_encoder(name: str, encoder: Encoder, config: checkpoint.CheckpointConfig) -> bool:
    """Whether an encoder can be the one of this name, as far as can be told without its weights."""
    both = (name, encoder.name)
    last_token = [n == BASE_MODEL or n.startswith(LAST_TOKEN_PREFIX) for n in both]
    formats = [sentence_format(n) for n in both]
    return (
        encoder.size == config.hypernet.embedding_size
        and last_token[0] == last_token[1]
        and (last_token[0] or formats[0] == formats[1])
    )


def _short_name(name: str) -> str:
    """A model's name without prefix, organisation and case."""
    return name.removeprefix(LAST_TOKEN_PREFIX).rstrip("/").rpartition("/")[2].lower()


class Generator:
    """Generates adapters for batches of descriptions. Synchronous and not thread-safe: use one
    thread.

    Attributes:
        spec: shapes and scale of every adapter.
        fingerprint: identity of the hypernetwork (architecture and weights).
        base_fingerprint: identity of the base model. Empty for a checkpoint that was imported
            without its weights, until `check_base_model` has read them.
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
        self.base_fingerprint = config.base_model.fingerprint or ""
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
            encoder: as in `Encoder.load`. None: the base model for a checkpoint that was trained
                with it, otherwise the bundled all-MiniLM-L6-v2.
            device: where the hypernetwork and the encoder run.
            base_model: the model that the encoder `base-model` stands for; None: the bundled one.
            dtype: dtype of the sentence encoder and of the heads (see `InferenceHypernet`). The
                engine rounds adapters to bf16, so the machine's fastest dtype is precise enough for
                a server.
            cache_dir: folder for the unpacked base model; see `model_paths.base_model_folder`.

        Raises:
            CheckpointError: the folder is not a whole checkpoint.
            MismatchError: the hypernetwork was trained with another encoder.
            ModelNotFoundError: no encoder has that name, or it cannot be used by that name.
        """
        name = encoder_name_for(encoder, checkpoint.load_config(folder).encoder.name)
        return cls(folder, Encoder.load(name, device, base_model, dtype, cache_dir), device, dtype)

    def check_base_model(self, folder: Path, name: str | None = None) -> None:
        """Refuse a base model that the hypernetwork was not trained for.

        A checkpoint that was imported without the base model's weights records only a name. Then
        the shapes of all adapted layers must agree, and another name is logged.

        Args:
            folder: the base model, with config.json and weights.
            name: what to call it in messages; None: the folder's name or hub id.

        Raises:
            MismatchError: naming both.
            BaseModelError: the folder is no base model.
        """
        given = ModelIdentity(name=name or model_name(str(folder)), fingerprint=fingerprint(folder))
        trained = ModelIdentity(name=self.base_model_name, fingerprint=self.base_fingerprint or None)
        if trained.fingerprint is None:
            found = lora_spec(
                folder,
                rank=self.spec.rank,
                alpha=self.spec.alpha,
                use_rslora=self.spec.use_rslora,
                target_modules=[m.name for m in self.spec.modules],
            )
            same = found == self.spec
        else:
            same = trained.fingerprint == given.fingerprint
        if not same:
            raise MismatchError(
                f"the hypernetwork generates adapters for {trained}, not for {given}. "
                f"Name the right one with --base-model"
            )
        if _short_name(trained.name) != _short_name(model_name(str(folder))):
            log.log(
                logging.DEBUG if trained.fingerprint else logging.WARNING,
                "the hypernetwork was trained for base model %s; it is used with %s",
                trained,
                given,
            )
        self.base_fingerprint = str(given.fingerprint)

    def compile(self, max_batch: int) -> None:
        """Compile the hypernetwork (see `batch_buckets`). Takes one to two minutes.

        Args:
            max_batch: largest number of descriptions in a batch.
        """
        sizes = tuple(sorted({1, min(8, max_batch), max_batch}))
        self._model = compile_buckets(self._model, self.embed(["warm up"]).to(self._device), sizes)

    def generate(self, descriptions: list[str]) -> list[LoraWeights]:
        """One adapter per description, from one forward pass."""
        return self.generate_from_embeddings(self.embed(descriptions))

    def prepare(self, description: str) -> PreparedDescription:
        """Normalise, tokenize and check a description. Thread-safe, about 60 microseconds for a
        sentence.

        Raises:
            DescriptionError: the description is empty, too long or not readable for the encoder.
        """
        return self._encoder.tokenizer.prepare(description)

    def embed(self, descriptions: list[str]) -> Tensor:
        """Descriptions -> [n, e]."""
        return self._encoder.encode(descriptions)

    def generate_from_embeddings(self, embeddings: Tensor) -> list[LoraWeights]:
        """[n, e] -> n adapters, in the dtype of the heads."""
        return self.forward(embeddings).split(self.spec)

    def forward(self, embeddings: Tensor) -> LoraBatch:
        """[n, e] -> n adapters as one batch, for `FrozenBase`."""
        return self._model(embeddings.to(self._device))
