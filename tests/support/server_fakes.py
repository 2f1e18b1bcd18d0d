"""Small fakes of the hypernetwork and the engine, which can be made to fail."""

from __future__ import annotations

import asyncio
import hashlib
import string
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from hypernet.config import LoraSpec, ModuleShape
from hypernet.description_tokenizer import DescriptionTokenizer
from hypernet.lora import LoraWeights
from server.adapters.adapter import Adapter
from server.engine.interface import Delta, Lease, Sampling
from server.errors import EngineDeadError

SPEC = LoraSpec(
    rank=2,
    alpha=4,
    num_layers=2,
    modules=(
        ModuleShape(path="self_attn.q_proj", in_features=6, out_features=8),
        ModuleShape(path="self_attn.v_proj", in_features=6, out_features=4),
    ),
)


async def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Poll a condition that no event signals."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def weights_for(text: str, spec: LoraSpec = SPEC) -> LoraWeights:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    flat = torch.randn(spec.num_parameters, generator=torch.Generator().manual_seed(seed))
    return LoraWeights.unflatten(spec, flat)


def adapter_for(
    text: str, adapter_id: str | None = None, created_us: int = 1, spec: LoraSpec = SPEC
) -> Adapter:
    adapter_id = adapter_id or hashlib.sha256(text.encode()).hexdigest()[:32]
    return Adapter.from_weights(adapter_id, text, created_us, weights_for(text, spec))


def character_tokenizer() -> DescriptionTokenizer:
    """One token per ASCII character.

    Case and accents do not matter, as with the bundled encoder.
    """
    vocabulary = {token: i for i, token in enumerate(["[UNK]", *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return DescriptionTokenizer(tokenizer, window=1000, max_windows=8)


class FakeGenerator:
    """Weights are a function of the description."""

    spec = SPEC
    fingerprint = "hypernetwork"
    base_fingerprint = "base"
    base_model_name = "tiny"
    encoder_fingerprint = "encoder"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failure: Exception | None = None
        self.nan_for: str | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.prepare = character_tokenizer().prepare

    @property
    def generated(self) -> list[str]:
        return [text for batch in self.batches for text in batch]

    def embed(self, descriptions: list[str]) -> Tensor:
        self.batches.append(descriptions)
        self.gate.wait(10)
        if self.failure:
            raise self.failure
        return torch.zeros(len(descriptions), 1)

    def generate_from_embeddings(self, embeddings: Tensor) -> list[LoraWeights]:
        made = [weights_for(text) for text in self.batches[-1]]
        for text, weights in zip(self.batches[-1], made, strict=True):
            if text == self.nan_for:
                weights.a["q_proj"][0, 0, 0] = float("nan")
        return made


class FakeEngine:
    """Generates the adapter's id, then numbers.

    Tokens are characters of the prompt and words of the answer.
    """

    model_name = "tiny"
    max_model_len = 200

    def __init__(self) -> None:
        self.dead: str | None = None
        self.died = asyncio.Event()
        self.started = self.stopped = False
        self.start_failure: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.die_after: int | None = None
        self.crash: Exception | None = None
        self.leases: Counter[str] = Counter()
        self.loaded: list[LoraWeights] = []
        self.running = 0
        self.aborted = 0
        self.evicted: list[str] = []
        self.samplings: list[Sampling] = []
        self.prompts: list[list[int]] = []

    async def start(self) -> None:
        await self.ready.wait()
        if self.start_failure:
            raise self.start_failure
        self.started = True

    async def stop(self) -> None:
        self.stopped = True

    def die(self) -> None:
        self.dead = "killed"
        self.died.set()

    async def death(self) -> str:
        await self.died.wait()
        return str(self.dead)

    def tokenize(self, messages: list[dict[str, str]] | None, text: str | None) -> list[int]:
        if messages is not None:
            text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        return [ord(c) for c in text or ""]

    @asynccontextmanager
    async def lease(self, adapter_id: str, weights: LoraWeights) -> AsyncIterator[Lease]:
        weights.validate()
        self.loaded.append(weights)
        self.leases[adapter_id] += 1
        try:
            yield Lease(adapter_id, None)
        finally:
            self.leases[adapter_id] -= 1

    async def generate(
        self, prompt: list[int], sampling: Sampling, lease: Lease | None, request_id: str
    ) -> AsyncGenerator[Delta]:
        self.samplings.append(sampling)
        self.prompts.append(prompt)
        self.running += 1
        finished = False
        words = [lease.adapter_id[:8] if lease else "base", *map(str, range(1, sampling.max_tokens))]
        try:
            for i, word in enumerate(words, 1):
                if i > 1:
                    await self.gate.wait()
                if self.die_after is not None and i > self.die_after:
                    self.die()
                    raise EngineDeadError("the engine has died")
                if self.crash:
                    raise self.crash
                last = i == len(words)
                finished = finished or last
                yield Delta(word if i == 1 else f" {word}", i, "length" if last else None)
        finally:
            self.running -= 1
            self.aborted += not finished

    async def evict(self, adapter_id: str) -> None:
        self.evicted.append(adapter_id)

    @property
    def resident(self) -> int:
        return len(self.leases)

    def stats(self) -> dict[str, Any]:
        return {"resident": self.resident}
