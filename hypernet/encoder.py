"""Encoders: task descriptions -> embeddings, the hypernetwork's input.

Two kinds, selected by name: a sentence-transformers model, or the final hidden state of a causal
language model at a description's last token (T2L, Charakorn et al. 2025, section 3). Every
embedding is scaled to norm sqrt(dimension). Its entries then have unit variance, which the first
linear layer expects, whichever encoder made the embedding.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from hypernet.attention import attention_implementation
from hypernet.base_model import fingerprint, read_config
from hypernet.bundled_models import ENCODER_NAME, ModelNotFoundError
from hypernet.description_format import last_token_format, sentence_format
from hypernet.description_tokenizer import MAX_WINDOWS, DescriptionTokenizer
from hypernet.inference.fused_bert import fuse_bert_layers
from hypernet.inference.prepacked_linear import prepack
from hypernet.model_paths import base_model_folder, encoder_folder, loading_model

BASE_MODEL = "base-model"
"""Name of the encoder that is the base model itself."""
LAST_TOKEN_PREFIX = "last-token:"
"""Prefix of a folder or hub id: encode with that causal language model."""
REMOTE_CODE_PREFIX = "remote-code:"
"""Prefix of a folder or hub id: run the Python code that the encoder's authors ship with it."""


class EncoderError(ModelNotFoundError):
    """The encoder exists but cannot be used under this name.

    The message says how it can be used.
    """


class Encoder(ABC):
    """Embeds descriptions.

    Attributes:
        name: the name that it was loaded by.
        size: length e of an embedding.
        fingerprint: identity of weights and method. Another fingerprint means other embeddings.
        tokenizer: tells what the encoder reads of a description.
    """

    name: str
    size: int
    fingerprint: str
    tokenizer: DescriptionTokenizer

    @abstractmethod
    def encode(self, descriptions: list[str]) -> Tensor:
        """Embed descriptions, in fp32 on the CPU. Every token of a description counts.

        Returns:
            [n, e], each row of norm sqrt(e).

        Raises:
            DescriptionTooLongError: a description has more than `tokenizer.max_tokens` tokens.
        """

    @staticmethod
    def load(
        name: str | None = None,
        device: str = "cpu",
        base_model: str | None = None,
        dtype: torch.dtype = torch.float32,
        cache_dir: Path | None = None,
    ) -> Encoder:
        """Load an encoder.

        Args:
            name: a sentence-transformers folder or hub id, with the prefix `remote-code:` if the
                model's own code may run. None or `all-MiniLM-L6-v2`: the bundled encoder.
                `base-model`: the last-token state of the base model. `last-token:NAME`: that of
                another causal language model.
            device: a torch device.
            base_model: the model that `base-model` stands for. None: the bundled base model.
            dtype: dtype of a sentence encoder. bf16 changes an embedding by 1% and an adapter by
                0.5%. Rounding an adapter to bf16 changes it by 0.2%, another task's description by
                80%.
            cache_dir: folder for the unpacked base model; see `model_paths.base_model_folder`.

        Raises:
            EncoderError: the model needs its own code and the name has no prefix `remote-code:`.
            ModelNotFoundError: no model has this name.
        """
        folder, last_token = resolve_encoder(name, base_model, cache_dir)
        if last_token:
            return LastTokenEncoder(folder, str(name), device)
        trust = name is not None and name.startswith(REMOTE_CODE_PREFIX)
        model_name = (name or ENCODER_NAME).removeprefix(REMOTE_CODE_PREFIX)
        return SentenceEncoder(folder, model_name, device, dtype, trust_remote_code=trust)


def resolve_encoder(
    name: str | None, base_model: str | None = None, cache_dir: Path | None = None
) -> tuple[Path, bool]:
    """Find an encoder's folder by its name (see `Encoder.load`).

    Returns:
        The folder, and True for a last-token encoder.

    Raises:
        ModelNotFoundError: no model has this name.
    """
    if name == BASE_MODEL:
        return base_model_folder(base_model, cache_dir), True
    if name and name.startswith(LAST_TOKEN_PREFIX):
        return base_model_folder(name.removeprefix(LAST_TOKEN_PREFIX), cache_dir), True
    return encoder_folder(name and name.removeprefix(REMOTE_CODE_PREFIX)), False


def encoder_name_for(requested: str | None, trained_with: str) -> str | None:
    """The encoder to load with a checkpoint. None: the bundled one.

    Args:
        requested: the user's choice. None: no choice.
        trained_with: the encoder in the checkpoint's config. `base-model` needs no choice by the
            user.
    """
    return BASE_MODEL if requested is None and trained_with == BASE_MODEL else requested


class SentenceEncoder(Encoder):
    """A sentence-transformers model with the pooling that its folder declares (gte-large-en-v1.5:
    CLS).

    A description longer than the model's window is embedded in windows. Its embedding is the mean
    of the windows' unit embeddings, weighted by their token counts.

    Batches of up to `BATCH` descriptions call the model directly. `SentenceTransformer.encode`
    walks all modules several times a call, which costs a tenth of one description's embedding.

    Args:
        folder: in sentence-transformers' layout.
        name: name of the encoder.
        device: a torch device.
        dtype: dtype of the computation.
        trust_remote_code: run Python that comes with the model, with the user's rights. Never the
            default.

    Raises:
        EncoderError: the model needs its own code and `trust_remote_code` is False, or the model
            has no tokenizer of the `tokenizers` library.
        ModelLoadError: the folder cannot be loaded.
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
        from sentence_transformers import SentenceTransformer  # slow to import; not every command encodes

        if not trust_remote_code and "auto_map" in read_config(folder):
            raise EncoderError(
                f"encoder {name} needs Python code that comes with it, and this code runs with your rights. "
                f"Read the code that auto_map in its config.json names. If you trust it, name the encoder "
                f"{REMOTE_CODE_PREFIX}{name}"
            )
        self.name = name
        with loading_model(folder):
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
        # `SentenceTransformer.encode` also adds a prompt and cuts embeddings; a direct call does
        # neither.
        self._can_call_model = self._model.default_prompt_name is None and self._model.truncate_dim is None
        self.size = self._model.get_embedding_dimension()
        self.fingerprint = sentence_fingerprint(folder, name)
        self._format = sentence_format(name)
        self.tokenizer = self._description_tokenizer()

    def _description_tokenizer(self) -> DescriptionTokenizer:
        """The tokenizer of descriptions.

        Windows need an encoder that adds nothing but its special tokens.
        """
        backend = _backend(self._model.tokenizer, self.name)
        prompt = self._model.prompts.get(self._model.default_prompt_name or "") or ""
        ids = self._model.preprocess(["a"], prompt=prompt)["input_ids"][0]
        added = len(ids) - len(backend.encode("a", add_special_tokens=False).ids)
        extra = added - backend.num_special_tokens_to_add(False)  # of a prompt or a chat template
        limit = self._model.max_seq_length
        return DescriptionTokenizer(
            backend,
            None if limit is None else limit - extra,
            MAX_WINDOWS if self._can_call_model and not extra else 1,
            complete=self._format.apply,
        )

    def encode(self, descriptions: list[str]) -> Tensor:
        """See `Encoder.encode`."""
        texts = [self._format.apply(text) for text in descriptions]
        windows = [self.tokenizer.windows(text) for text in descriptions]
        long = [i for i, parts in enumerate(windows) if len(parts) > 1]
        if not long:
            return _scale_norm(self._encode_texts(texts))
        states = torch.empty(len(texts), self.size)
        short = [i for i, parts in enumerate(windows) if len(parts) == 1]
        if short:
            states[short] = self._encode_texts([texts[i] for i in short]).float().cpu()
        for i in long:
            states[i] = self._encode_windows(windows[i])
        return _scale_norm(states)

    @torch.inference_mode()
    def _encode_texts(self, texts: list[str]) -> Tensor:
        """Texts that fit into the window -> [n, e]."""
        fits_one_batch = self._can_call_model and 0 < len(texts) <= self.BATCH
        return self._encode_batch(texts) if fits_one_batch else self._encode_batches(texts)

    @torch.inference_mode()
    def _encode_windows(self, windows: list[list[int]]) -> Tensor:
        """Token ids of one description's windows -> [e], their mean weighted by token counts."""
        ids, mask = _pad(windows, self._model.tokenizer.pad_token_id or 0)  # [windows, T]
        features = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        states: Tensor = self._model(features)["sentence_embedding"]  # [windows, e]
        weights = mask.sum(dim=1, keepdim=True) / mask.sum()  # [windows, 1]
        return (F.normalize(states.float().cpu(), dim=-1) * weights).sum(dim=0)

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


def _backend(tokenizer: Any, name: str) -> Tokenizer:
    """The `tokenizers` object behind a model's tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    # For a folder without a tokenizer's files transformers makes one that has special tokens only.
    if not isinstance(backend, Tokenizer) or backend.get_vocab_size(with_added_tokens=True) <= len(
        backend.get_added_tokens_decoder()
    ):
        raise EncoderError(f"encoder {name} has no tokenizer.json. Choose an encoder that has one")
    return backend


def _pad(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids of n texts -> ids and attention mask, both [n, T], padded on the right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def sentence_fingerprint(folder: Path, name: str) -> str:
    """Identity of a sentence encoder: its weights, and its method where that is not the common one.

    The common method reads descriptions unchanged and averages over tokens. The same files under a
    name that asks for another description format, or with another pooling, are another encoder.
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
        name: name of the encoder.
        device: a torch device. The CPU computes in fp32, so that an embedding does not depend on
            its batch. Other devices compute in the model's own dtype.

    Raises:
        EncoderError: the model has no tokenizer of the `tokenizers` library.
        ModelLoadError: the folder cannot be loaded.
    """

    BATCH = 32

    def __init__(self, folder: Path, name: str, device: str = "cpu") -> None:
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        self.name = name
        self._format = last_token_format(name)
        self.fingerprint = last_token_fingerprint(folder, name)
        self._device = device
        dtype = torch.float32 if device == "cpu" else "auto"
        with loading_model(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            attention = attention_implementation(AutoConfig.from_pretrained(folder), device)
            model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
        self._model = model.to(device).eval()
        self.size = int(self._model.config.hidden_size)
        self.tokenizer = DescriptionTokenizer(
            _backend(tokenizer, name),
            int(self._model.config.max_position_embeddings),
            complete=lambda text: self._format.apply(text) or " ",
        )

    @torch.inference_mode()
    def _states(self, rows: list[list[int]]) -> Tensor:
        """Token ids of n texts -> [n, e]."""
        # A causal model's tokens do not see the padding on their right, so no mask is needed,
        # and every text keeps the positions that it has alone.
        ids = _pad(rows, 0)[0].to(self._device)  # [n, T]
        last = torch.tensor([len(row) - 1 for row in rows], device=self._device)
        hidden: Tensor = self._model(input_ids=ids, use_cache=False).last_hidden_state  # [n, T, e]
        states: Tensor = hidden[torch.arange(len(rows), device=self._device), last]
        return states

    def encode(self, descriptions: list[str]) -> Tensor:
        """See `Encoder.encode`. An empty description is read as a single space."""
        rows = [self.tokenizer.windows(text)[0] for text in descriptions]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of a batch have similar lengths
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
    # Cloned outside inference mode: training uses the embeddings in its graph.
    detached = states.clone().float().cpu()
    scaled: Tensor = F.normalize(detached, dim=-1) * detached.shape[-1] ** 0.5
    return scaled
