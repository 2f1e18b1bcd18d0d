"""One real engine for the whole session, because its start takes longer than any test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from hypernet.base_model import lora_spec
from hypernet.bundled_models import base_model_path
from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights
from server import app
from server.engine.config import MIB, EngineConfig
from server.engine.vllm import VllmEngine
from server.settings import Settings

MODULES = ("q_proj", "v_proj", "gate_proj", "down_proj")
"""Packed layers with an unused slice (k, up), a plain layer, and every kind of parallelism."""

MakeAdapter = Callable[..., LoraWeights]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The folder of SmolLM2-135M-Instruct: `TEST_BASE_MODEL`, or the bundled one."""
    if chosen := os.environ.get("TEST_BASE_MODEL"):
        return Path(chosen)
    return base_model_path()


@pytest.fixture(scope="session")
def base_spec(base_model: Path) -> LoraSpec:
    """LoRA spec of the session's engine."""
    return lora_spec(base_model, rank=8, alpha=16, use_rslora=True, target_modules=MODULES)


@pytest.fixture(scope="session")
def engine_config(base_model: Path, base_spec: LoraSpec) -> EngineConfig:
    """Configuration of a small engine: four slots and 256 MiB of KV cache."""
    settings = Settings(max_loras=4, max_model_len=1024, kv_cache_bytes=256 * MIB)
    return app.engine_config(settings, model=str(base_model), model_name="small", lora=base_spec)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(engine_config: EngineConfig) -> AsyncIterator[VllmEngine]:
    """The session's engine. Tests on it run in the session's event loop."""
    engine = VllmEngine(engine_config)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


@pytest.fixture(scope="session")
def make_adapter(base_spec: LoraSpec) -> MakeAdapter:
    """Create random adapters with a clear but moderate effect.

    Keywords change fields of the spec.
    """

    def make(seed: int, size: float = 0.02, **fields: object) -> LoraWeights:
        spec = base_spec.model_copy(update=fields)
        generator = torch.Generator().manual_seed(seed)
        return LoraWeights.unflatten(spec, torch.randn(spec.num_parameters, generator=generator) * size)

    return make
