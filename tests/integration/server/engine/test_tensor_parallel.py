"""Tensor parallelism: two processes give the answers of one, with and without adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hypernet.base_model import lora_spec
from hypernet.lora import LoraWeights
from server.app import engine_config
from server.engine.config import MIB
from server.engine.vllm import VllmEngine
from server.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

MODULES = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
"""Column-parallel, packed and row-parallel layers: every way in which vLLM splits a layer."""


@pytest.fixture(scope="module")
def wider_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with the head size that vLLM's CPU kernels need."""
    folder = tmp_path_factory.mktemp("wider") / "tiny-llama"
    shutil.copytree(tiny_base, folder)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(tiny_base, head_dim=32)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


async def answers(base: Path, ranks: int, complete: Any) -> list[str]:
    spec = lora_spec(base, rank=8, alpha=16, use_rslora=False, target_modules=MODULES)
    settings = Settings(
        max_loras=2, max_model_len=128, kv_cache_bytes=16 * MIB, tensor_parallel=ranks, dtype="float32"
    )
    engine = VllmEngine(engine_config(settings, model=str(base), model_name="tiny", lora=spec))
    try:
        await engine.start()
        assert engine._llm.vllm_config.parallel_config.world_size == ranks
        prompt = engine.tokenize(None, "abracadabra")
        said = ["".join(d.text for d in await complete(engine, prompt, None, max_tokens=12))]
        for seed in range(3):  # one more than slots
            numbers = torch.randn(spec.num_parameters, generator=torch.Generator().manual_seed(seed))
            async with engine.lease(f"a{seed}", LoraWeights.unflatten(spec, 0.3 * numbers)) as lease:
                said.append("".join(d.text for d in await complete(engine, prompt, lease, max_tokens=12)))
        return said
    finally:
        await engine.stop()


async def test_tensor_parallel_answers_equal_those_of_one_process(
    wider_base: Path, complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each engine sets these, unless they are set.
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    alone = await answers(wider_base, 1, complete)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    together = await answers(wider_base, 2, complete)
    assert together == alone
    assert len(set(alone)) == len(alone)
