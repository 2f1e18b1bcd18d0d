"""The base model as training and evaluation see it: frozen, adapted per row, read only at answers."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from hypernet.apply import LoraInjector
from hypernet.base_model import fingerprint
from hypernet.config import LoraSpec
from hypernet.model import LoraBatch
from hypernet.training.packing import ChatFormat, Packed


class FrozenBase:
    """A causal LM with no trainable weight, through which gradients flow into LoRA adapters.

    Args:
        folder: a transformers model folder.
        spec: the LoRA that will be applied.
        device: a torch device.
        dtype: bf16 is four times faster than fp32 where the CPU has bf16 dot products.
    """

    def __init__(self, folder: Path, spec: LoraSpec, device: str, dtype: torch.dtype = torch.bfloat16) -> None:
        self.name = folder.name
        self.fingerprint = fingerprint(folder)
        self.spec = spec
        self.device = device
        self.chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
        # On the CPU plain matrix products beat the fused kernel: its backward is slow there.
        attention = "eager" if device == "cpu" else "sdpa"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
        self.model.to(device).eval().requires_grad_(False)
        self._injector = LoraInjector(self.model, spec)

    def logits(self, packed: Packed, adapters: LoraBatch | None) -> Tensor:
        """Predictions of the response tokens. [S, vocabulary], fp32.

        Args:
            packed: N rows.
            adapters: N adapters, one per row, or None for the base model alone.
        """
        packed = packed.to(self.device)
        if adapters is None:
            return self._logits(packed)
        with self._injector.use(adapters.a, adapters.b):
            return self._logits(packed)

    def _logits(self, packed: Packed) -> Tensor:
        forbidden = torch.finfo(self.model.dtype).min
        hidden = self.model.model(
            input_ids=packed.tokens,
            position_ids=packed.positions,
            attention_mask=(~packed.mask).to(self.model.dtype) * forbidden,  # [N, 1, T, T], added to the scores
            use_cache=False,
        ).last_hidden_state  # [N, T, hidden]
        # The vocabulary is wide and answers are short: project only where a response token is predicted.
        chosen = hidden[packed.rows, packed.columns]  # [S, hidden]
        return F.linear(chosen, self.model.lm_head.weight).float()

    @torch.inference_mode()
    def greedy(self, prompts: list[list[int]], adapter: LoraBatch | None, max_tokens: int) -> list[list[int]]:
        """Greedy answers to prompts, all under one adapter (a batch of one) or none; no end of turn."""
        width = max(map(len, prompts))
        end = self.chat.end_of_turn
        ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts], device=self.device)  # [n, width]
        seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        with self._injector.use(adapter.a, adapter.b) if adapter else nullcontext():
            out = self.model.generate(
                input_ids=ids, attention_mask=seen, max_new_tokens=max_tokens, do_sample=False, pad_token_id=end
            )  # [n, width + new]
        return [[t for t in answer if t != end] for answer in out[:, width:].tolist()]
