"""The frozen base model of training and evaluation: one adapter per row,
logits at response tokens only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Cache

from hypernet.attention import attention_implementation, attention_masks
from hypernet.base_model import fingerprint
from hypernet.config import LoraSpec
from hypernet.hardware import can_compile, fastest_dtype
from hypernet.lora import LoraBatch
from hypernet.lora_injector import LAYERS_PATH, LoraInjector
from hypernet.model_paths import loading_model, model_name
from hypernet.packing import ChatFormat, PackedBatch


class FrozenBase:
    """A causal language model without trainable weights. Gradients flow through it into LoRA
    adapters.

    Args:
        folder: a transformers model folder.
        spec: shapes of the adapters.
        device: a torch device.
        dtype: dtype of weights and activations; None: the fastest one on the device.

    Raises:
        BaseModelError: the folder lacks weights or a readable config.json.
        ModelLoadError: the folder cannot be loaded.
    """

    def __init__(self, folder: Path, spec: LoraSpec, device: str, dtype: torch.dtype | None = None) -> None:
        self.folder = folder
        self.name = model_name(str(folder))
        self.fingerprint = fingerprint(folder)
        self.spec = spec
        self.device = device
        with loading_model(folder):
            self.chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
            self.model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype or fastest_dtype(device),
                attn_implementation=attention_implementation(AutoConfig.from_pretrained(folder), device),
            )
        self.model.to(device).eval().requires_grad_(False)
        self._injector = LoraInjector(self.model, spec)

    def compile(self) -> None:
        """Compile the decoder layers. On a CPU this halves the time of a training step.

        All layers share one compilation, which happens in the first steps. Does nothing where there
        is no compiler (see `hardware.can_compile`).
        """
        if can_compile(self.device):
            for layer in self.model.get_submodule(LAYERS_PATH).children():
                layer.compile()

    def logits(self, packed: PackedBatch, adapters: LoraBatch | None) -> Tensor:
        """Logits of the response tokens. [S, vocabulary], in the model's dtype.

        Args:
            packed: N rows.
            adapters: N adapters, one per row; None: the base model alone.
        """
        packed = packed.to(self.device)
        with self.adapted(adapters):
            hidden = self.hidden(packed.tokens, packed.positions, packed.mask)  # [N, T, hidden]
        # The vocabulary is large and responses are short: project only the positions that predict
        # one.
        return self.project(hidden[packed.rows, packed.columns])

    def adapted(self, adapters: LoraBatch | None) -> AbstractContextManager[None]:
        """A context in which the model runs with these adapters, as in `LoraInjector.use`."""
        return self._injector.use(adapters.a, adapters.b) if adapters else nullcontext()

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Cache | None = None,
        key_positions: Tensor | None = None,
    ) -> Tensor:
        """The last layer's hidden states. [N, T, hidden].

        Args:
            tokens: [N, T].
            positions: [N, T], position of each token in its own text.
            mask: [N, 1, T, T'], True where a token may attend to one of the T' keys, cached ones
                included.
            cache: keys and values of earlier tokens. The T tokens are added to it.
            key_positions: [N, T'], position of each key in its own text; None: the keys are the T
                tokens.
        """
        keys = positions if key_positions is None else key_positions
        hidden: Tensor = self.model.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=attention_masks(self.model.config, mask, positions, keys, self.model.dtype),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits. [..., hidden] -> [..., vocabulary], in the model's dtype.

        Gemma 2 soft-caps logits: cap * tanh(logits / cap) (Gemma Team 2024, section 2).
        """
        logits = F.linear(hidden, self.model.lm_head.weight)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return torch.tanh(logits.float() / cap) * cap if cap else logits
