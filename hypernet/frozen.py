"""The base model as training and evaluation see it: frozen, adapted per row, read only at answers."""

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
from hypernet.model_paths import model_name
from hypernet.packing import ChatFormat, PackedBatch


class FrozenBase:
    """A causal LM with no trainable weight, through which gradients flow into LoRA adapters.

    Args:
        folder: a transformers model folder.
        spec: the LoRA that will be applied.
        device: a torch device.
        dtype: of weights and activations; None is what the device multiplies fastest.
    """

    def __init__(self, folder: Path, spec: LoraSpec, device: str, dtype: torch.dtype | None = None) -> None:
        self.folder = folder
        self.name = model_name(str(folder))
        self.fingerprint = fingerprint(folder)
        self.spec = spec
        self.device = device
        self.chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
        self.model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or fastest_dtype(device),
            attn_implementation=attention_implementation(AutoConfig.from_pretrained(folder), device),
        )
        self.model.to(device).eval().requires_grad_(False)
        self._injector = LoraInjector(self.model, spec)

    def compile(self) -> None:
        """Fuse what lies between the matrix products, layer by layer: half of a training step on a CPU.

        All layers share one compilation, which the first steps pay for. Does nothing where there is no
        compiler (see `hardware.can_compile`).
        """
        if can_compile(self.device):
            for layer in self.model.get_submodule(LAYERS_PATH).children():
                layer.compile()

    def logits(self, packed: PackedBatch, adapters: LoraBatch | None) -> Tensor:
        """Scores of the response tokens. [S, vocabulary], in the model's number format.

        Args:
            packed: N rows.
            adapters: N adapters, one per row, or None for the base model alone.
        """
        packed = packed.to(self.device)
        with self.adapted(adapters):
            hidden = self.hidden(packed.tokens, packed.positions, packed.mask)  # [N, T, hidden]
        # The vocabulary is wide and answers are short: project only where a response token is predicted.
        return self.project(hidden[packed.rows, packed.columns])

    def adapted(self, adapters: LoraBatch | None) -> AbstractContextManager[None]:
        """Within it the model runs with these adapters, shared out as `LoraInjector.use` says."""
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
            mask: [N, 1, T, T'], True where a token may attend to one of the T' keys, cached ones included.
            cache: keys and values of earlier tokens. The T tokens are added to it.
            key_positions: [N, T'], position of each key in its own text; None: the keys are the T tokens.
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
        """States to scores of the next token. [..., hidden] -> [..., vocabulary], in the model's number format.

        Gemma 2 bends large scores: cap * tanh(score / cap) (Gemma Team 2024, section 2).
        """
        scores = F.linear(hidden, self.model.lm_head.weight)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return torch.tanh(scores.float() / cap) * cap if cap else scores
