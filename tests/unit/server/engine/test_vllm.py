"""The engine's front end: tokens of raw text, and slots after a failed serialisation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from hypernet.config import LoraSpec, ModuleShape
from hypernet.lora import LoraWeights
from server.app import engine_config
from server.engine import serialization
from server.engine.vllm import VllmEngine
from server.settings import Settings

SPEC = LoraSpec(
    rank=2,
    alpha=4,
    num_layers=1,
    modules=(ModuleShape(path="self_attn.q_proj", in_features=4, out_features=4),),
)


def engine(**llm: Any) -> VllmEngine:
    made = VllmEngine(engine_config(Settings(max_loras=1), model="m", model_name="m", lora=SPEC))
    made._llm = SimpleNamespace(errored=False, **llm)
    return made


def test_raw_text_gets_exactly_one_bos_token(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens({"bos_token": "<begin>"})
    begin = tokenizer.bos_token_id
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", begin)]
    )
    tokenize = engine(get_tokenizer=lambda: tokenizer).tokenize
    assert tokenize(None, "cat dog").count(begin) == 1
    assert tokenize(None, "<begin>cat dog") == tokenize(None, "cat dog")
    assert tokenize(None, "") == [begin]


async def test_failed_serialisation_still_evicts_the_replaced_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = []

    async def collective_rpc(method: str, args: tuple[Any, ...]) -> None:
        calls.append((method, args))

    made = engine(collective_rpc=collective_rpc)
    weights = LoraWeights.unflatten(SPEC, torch.randn(SPEC.num_parameters))
    async with made.lease("first", weights):
        pass
    monkeypatch.setattr(serialization, "serialize", lambda *_, **__: (_ for _ in ()).throw(MemoryError("full")))
    with pytest.raises(MemoryError):
        async with made.lease("second", weights):
            pass
    assert [method for method, _ in calls] == ["t2l_load", "t2l_unload"]
    assert calls[1][1] == (calls[0][1][0],)  # the integer id of the first adapter
    assert made.resident == 0
