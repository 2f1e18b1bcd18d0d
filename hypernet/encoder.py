"""Descriptions in, vectors out: the encoder in front of the hypernetwork.

Two kinds, chosen by name: a sentence-transformers model, or the state of a causal
language model at a description's last token (T2L, Charakorn et al. 2025, section 3).
Every embedding is scaled to unit norm times sqrt(dimension), so that its entries
have the variance that the first linear layer expects, whichever encoder made it.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hypernet.attention import attention_implementation
from hypernet.base_model import fingerprint, read_config
from hypernet.bundled_models import ENCODER_NAME, ModelNotFoundError
from hypernet.description_format import last_token_format, sentence_format
from hypernet.inference.fused_bert import fuse_bert_layers
from hypernet.inference.prepacked_linear import prepack
from hypernet.model_paths import base_model_folder, encoder_folder

BASE_MODEL = "base-model"
"""The name of the encoder that is the base model itself."""
LAST_TOKEN_PREFIX = "last-token:"
"""Before a folder or hub id: encode with that causal language model."""
REMOTE_CODE_PREFIX = "remote-code:"
"""Before a folder or hub id: run the Python code that this encoder's authors ship with it."""


class EncoderError(ModelNotFoundError):
    """An encoder that is there but is not used as it was named; the message says how it could be."""


class Encoder(ABC):
    """Embeds descriptions.

    Attributes:
        name: what it was asked for as.
        size: length e of an embedding.
        fingerprint: identity of weights and method: another one means other vectors.
    """

    name: str
    size: int
    fingerprint: str

    @abstractmethod
    def encode(self, descriptions: list[str]) -> Tensor:
        """Embed descriptions, in fp32 on the CPU. [n, e], each row of norm sqrt(e)."""

    @staticmethod
    def load(
        name: str | None = None,
        device: str = "cpu",
        base_model: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Encoder:
        """Load an encoder.

        Args:
            name: a sentence-transformers folder or hub id, after `remote-code:` if its own code may run;
                None (or the name itself) is the embedded all-MiniLM-L6-v2; `base-model` is the last-token
                state of the base model, `last-token:NAME` that of any other causal language model.
            device: a torch device.
            base_model: what `base-model` stands for; None is the embedded base model.
            dtype: what a sentence encoder computes in. bf16 turns an embedding by 1%, and with it an adapter
                by 0.5%, twice what rounding the adapter to bf16 does; another task's description by 80%.

        Raises:
            EncoderError: the model needs code of its own and was not named with `remote-code:`.
            ModelNotFoundError: the name leads nowhere.
        """
        folder, last_token = resolve_encoder(name, base_model)
        if last_token:
            return LastTokenEncoder(folder, str(name), device)
        trust = name is not None and name.startswith(REMOTE_CODE_PREFIX)
        model_name = (name or ENCODER_NAME).removeprefix(REMOTE_CODE_PREFIX)
        return SentenceEncoder(folder, model_name, device, dtype, trust_remote_code=trust)


def resolve_encoder(name: str | None, base_model: str | None = None) -> tuple[Path, bool]:
    """Where an encoder of that name lies (see `Encoder.load`), and whether it is a model's last token.

    Raises:
        ModelNotFoundError: the name leads nowhere.
    """
    if name == BASE_MODEL:
        return base_model_folder(base_model), True
    if name and name.startswith(LAST_TOKEN_PREFIX):
        return base_model_folder(name.removeprefix(LAST_TOKEN_PREFIX)), True
    return encoder_folder(name and name.removeprefix(REMOTE_CODE_PREFIX)), False


def encoder_name_for(requested: str | None, trained_with: str) -> str | None:
    """What to load when a checkpoint is used: a network trained with the base model's state needs no option."""
    return BASE_MODEL if requested is None and trained_with == BASE_MODEL else requested


class SentenceEncoder(Encoder):
    """A sentence-transformers model, pooled as its own folder says (gte-large-en-v1.5: at CLS).

    A server's few descriptions go to the model itself: its `encode` looks through all modules several
    times a call, a tenth of what one description takes.

    Args:
        folder: in sentence-transformers' layout.
        name: what to call it.
        device: a torch device.
        dtype: what it computes in.
        trust_remote_code: let transformers run Python that comes with the model. Whoever wrote
            that code then runs as the user, so it is never on by itself.

    Raises:
        EncoderError: the model needs its own code and `trust_remote_code` is off.
    """

    BATCH = 64

    def __init__(
        self,
        folder: Path,
        name: str,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        from sentence_transformers import SentenceTransformer  # slow to import: only those who encode pay
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # loading takes a moment; its bar would stand in every server's log

        if not trust_remote_code and "auto_map" in read_config(folder):
            raise EncoderError(
                f"encoder {name} brings Python code of its own, which is not run unasked. Read the code that "
                f"auto_map in its config.json names; if you trust its authors, name the encoder "
                f"{REMOTE_CODE_PREFIX}{name}"
            )
        self.name = name
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=trust_remote_code,
            local_files_only=not trust_remote_code,
        )
        self._model.eval().to(dtype)
        fuse_bert_layers(self._model)
        prepack(self._model)
        self._device = device
        # What `encode` does besides must not be needed.
        self._can_call_model = self._model.default_prompt_name is None and self._model.truncate_dim is None
        self.size = self._model.get_embedding_dimension()
        self.fingerprint = sentence_fingerprint(folder, name)
        self._format = sentence_format(name)

    def encode(self, descriptions: list[str]) -> Tensor:
        """See `Encoder.encode`."""
        descriptions = [self._format.apply(text) for text in descriptions]
        fits_one_batch = self._can_call_model and 0 < len(descriptions) <= self.BATCH
        with torch.inference_mode():
            states = self._encode_batch(descriptions) if fits_one_batch else self._encode_batches(descriptions)
        return _scale_norm(states)

    def _encode_batch(self, descriptions: list[str]) -> Tensor:
        from sentence_transformers.util import batch_to_device

        features = batch_to_device(self._model.preprocess(descriptions), torch.device(self._device))
        states: Tensor = self._model(features)["sentence_embedding"]
        return states

    def _encode_batches(self, descriptions: list[str]) -> Tensor:
        states: Tensor = self._model.encode(
            descriptions, batch_size=self.BATCH, convert_to_tensor=True, show_progress_bar=False
        )
        return states


def sentence_fingerprint(folder: Path, name: str) -> str:
    """Identity of a sentence encoder: its weights, and its method where that is not the common one.

    The common method reads descriptions unchanged and averages over tokens. The same files under a name
    that asks for another description format, or with another pooling, are another encoder.
    """
    method: list[str] = [form.value] if (form := sentence_format(name)) else []
    module_list = folder / "modules.json"
    modules = json.loads(module_list.read_text()) if module_list.exists() else []
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            settings = json.loads((folder / module["path"] / "config.json").read_text())
            mean = settings.get("pooling_mode", "mean" if settings.get("pooling_mode_mean_tokens") else "other")
            method += [] if mean == "mean" else [json.dumps(settings, sort_keys=True)]
        elif kind not in ("Transformer", "Normalize"):
            method.append(kind)
    weights = fingerprint(folder)
    return hashlib.sha256(" ".join([weights, *method]).encode()).hexdigest()[:16] if method else weights


class LastTokenEncoder(Encoder):
    """A causal language model's final hidden state at a description's last token.

    Args:
        folder: a transformers folder of a causal language model.
        name: what to call it.
        device: a torch device. On the CPU it computes in fp32, so that a batch gives what each
            description alone gives; elsewhere in the model's own dtype.
    """

    BATCH = 32

    def __init__(self, folder: Path, name: str, device: str = "cpu") -> None:
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self.name = name
        self._format = last_token_format(name)
        self.fingerprint = last_token_fingerprint(folder, name)
        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        dtype = torch.float32 if device == "cpu" else "auto"
        attention = attention_implementation(AutoConfig.from_pretrained(folder), device)
        model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
        self._model = model.to(device).eval()
        self.size = int(self._model.config.hidden_size)

    @torch.inference_mode()
    def _states(self, rows: list[list[int]]) -> Tensor:
        """Token ids of n texts -> [n, e]."""
        width = max(map(len, rows))
        # Padded on the right, where a causal model's earlier tokens cannot see it: no mask is needed,
        # and every text keeps the positions that it has alone.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self._device)  # [n, T]
        last = torch.tensor([len(row) - 1 for row in rows], device=self._device)
        hidden: Tensor = self._model(input_ids=ids, use_cache=False).last_hidden_state  # [n, T, e]
        states: Tensor = hidden[torch.arange(len(rows), device=self._device), last]
        return states

    def encode(self, descriptions: list[str]) -> Tensor:
        """See `Encoder.encode`. An empty description is read as a single space."""
        longest = self._model.config.max_position_embeddings
        rows: list[list[int]] = [
            self._tokenizer(self._format.apply(text) or " ", truncation=True, max_length=longest).input_ids
            for text in descriptions
        ]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # neighbours of like length pad little
        states = torch.empty(len(rows), self.size)
        for start in range(0, len(order), self.BATCH):
            chosen = order[start : start + self.BATCH]
            states[chosen] = self._states([rows[i] for i in chosen]).float().cpu()
        return _scale_norm(states)


def last_token_fingerprint(folder: Path, name: str = BASE_MODEL) -> str:
    """Identity of a last-token encoder: its weights, its method and its description format.

    Never that of a sentence encoder or base model of the same weights.
    """
    method = f"last-token {last_token_format(name)} {fingerprint(folder)}"
    return hashlib.sha256(method.encode()).hexdigest()[:16]


def _scale_norm(states: Tensor) -> Tensor:
    """[n, e] -> the same directions with norm sqrt(e), in fp32 on the CPU."""
    # Cloned outside inference mode: a training step may need it in its graph.
    detached = states.clone().float().cpu()
    scaled: Tensor = F.normalize(detached, dim=-1) * detached.shape[-1] ** 0.5
    return scaled
