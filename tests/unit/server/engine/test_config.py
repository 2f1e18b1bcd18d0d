"""Engine arguments and environment variables that follow from the configuration."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from hypernet.config import LoraSpec, ModuleShape
from server.app import engine_config
from server.engine.config import EngineConfig
from server.engine.vllm import VllmEngine
from server.settings import Settings


def config(rank: int = 8, **fields: object) -> EngineConfig:
    modules = tuple(
        ModuleShape(path=f"self_attn.{name}_proj", in_features=4, out_features=4) for name in ("q", "v")
    )
    spec = LoraSpec(rank=rank, alpha=16, num_layers=2, modules=modules)
    config = engine_config(Settings(), model="somewhere", model_name="small", lora=spec)
    return replace(config, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rank", "slot"), [(1, 1), (2, 8), (8, 8), (9, 16), (512, 512)])
def test_slot_rank_is_the_smallest_that_fits(rank: int, slot: int) -> None:
    assert config(rank).engine_arguments()["max_lora_rank"] == slot


@pytest.mark.parametrize(("setting", "threads"), [(None, "7"), (3, "3")])
async def test_cpu_threads_setting_overrides_the_environment(
    monkeypatch: pytest.MonkeyPatch, setting: int | None, threads: str
) -> None:
    environment = {"OMP_NUM_THREADS": "7"}
    monkeypatch.setattr(os, "environ", environment)
    engine = VllmEngine(config(cpu_threads=setting))

    def no_model() -> None:
        raise RuntimeError("no model")

    monkeypatch.setattr(engine, "_load_engine", no_model)
    with pytest.raises(RuntimeError, match="no model"):
        await engine.start()
    assert environment["OMP_NUM_THREADS"] == threads


def test_only_modules_of_the_spec_get_slots() -> None:
    assert config().engine_arguments()["lora_target_modules"] == ["q_proj", "v_proj"]


def test_vllm_holds_as_many_adapters_on_the_host_as_in_slots() -> None:
    arguments = config(max_loras=5).engine_arguments()
    assert arguments["max_loras"] == arguments["max_cpu_loras"] == 5


def test_vllm_accepts_every_engine_argument() -> None:
    vllm = pytest.importorskip("vllm")
    assert vllm.AsyncEngineArgs(**config().engine_arguments()).max_model_len == 2048


def test_cpu_engine_leaves_one_core_to_the_server() -> None:
    assert config().environment(cpu=True, cores=6)["OMP_NUM_THREADS"] == "5"
    assert config().environment(cpu=True, cores=1)["OMP_NUM_THREADS"] == "1"
    assert config(cpu_threads=2).environment(cpu=True, cores=6)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in config().environment(cpu=False, cores=6)


def test_outputs_of_one_step_are_one_chunk() -> None:
    """An abort must be sent before the caller wakes up.
    vLLM keeps this order only within one chunk.
    """
    environment = config(max_num_seqs=300).environment(cpu=False, cores=1)
    assert int(environment["VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"]) >= 300


def test_vllm_sends_no_usage_statistics() -> None:
    environment = config().environment(cpu=True, cores=1)
    assert environment["VLLM_NO_USAGE_STATS"] == environment["VLLM_DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize(
    ("setting", "cpu", "expected"),
    [
        ("auto", {"avx2": True, "avx512_bf16": False}, "float32"),
        ("auto", {"avx512_bf16": True}, "auto"),
        ("auto", {"bf16": True}, "auto"),
        ("auto", None, "auto"),
        ("bfloat16", {"avx2": True}, "bfloat16"),
    ],
)
def test_auto_dtype_is_float32_on_a_cpu_without_bf16_arithmetic(
    setting: str, cpu: object, expected: str
) -> None:
    assert config(dtype=setting).resolved_dtype(cpu) == expected  # type: ignore[arg-type]
