"""The usual hand-written alternative: transformers and PEFT,
which activate one adapter at a time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from hypernet.model_paths import base_model_folder
from tests.benchmarks.context import NUM_ADAPTERS, BenchContext, cpu_capabilities
from tests.benchmarks.streams import prompt


class PeftSwap:
    """A model in this process with all adapters loaded from disk.

    One adapter is active at a time.
    """

    def __init__(self, context: BenchContext) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = base_model_folder()
        dtype = "float32" if context.config.resolved_dtype(cpu_capabilities()) == "float32" else "bfloat16"
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        names = [f"peft-{i}" for i in range(NUM_ADAPTERS)]
        folders = [
            str(context.save_adapter_folder(name, w)) for name, w in zip(names, context.adapters, strict=True)
        ]
        self._model: Any = PeftModel.from_pretrained(base, folders[0], adapter_name=names[0])
        for name, path in zip(names[1:], folders[1:], strict=True):
            self._model.load_adapter(path, adapter_name=name)
        self._model.eval()
        self._names = names

    def tokens_per_second(self, streams: int, tokens: int) -> float:
        """Decoding speed.

        Streams with the same adapter form a batch; batches run one after another.
        """
        whole, prompts = self._round(streams, tokens), self._round(streams, 1)
        return streams * (tokens - 1) / (whole - prompts)

    def _round(self, streams: int, tokens: int) -> float:
        started = time.perf_counter()
        for i, name in enumerate(self._names):
            self._model.set_adapter(name)
            self._generate([prompt(n) for n in range(i, streams, NUM_ADAPTERS)], tokens)
        return time.perf_counter() - started

    def first_token(self, folder: Path, number: int) -> float:
        """Seconds to load a new adapter from disk, activate it and generate one token."""
        started, name = time.perf_counter(), f"new-{number}"
        self._model.load_adapter(str(folder), adapter_name=name)
        self._model.set_adapter(name)
        self._generate([prompt(number)], 1)
        taken = time.perf_counter() - started
        self._model.set_adapter(self._names[0])
        self._model.delete_adapter(name)
        return taken

    @torch.inference_mode()
    def _generate(self, prompts: list[str], tokens: int) -> None:
        chats = [[{"role": "user", "content": text}] for text in prompts]
        ids = self._tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        self._model.generate(**ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True)
