"""Configuration of the engine: its size, its device,
and the environment variables that vLLM reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypernet.config import LoraSpec
from hypernet.hardware import has_native_bf16
from server.engine.patches.selection import PatchSelection

MIB = 2**20

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts as the maximum LoRA rank."""

GOMP_SPIN_COUNT = "2000"
"""Spins of a waiting OpenMP thread before it sleeps: about 60 us, as long as waking it takes.
Waiting then costs at most twice the optimum (competitive spinning, Karlin et al. 1991)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """All parameters of `VllmEngine`.

    Defaults are those of the settings (`server.app.engine_config`).
    """

    model: str
    """Folder or hub id of the base model."""
    model_name: str
    """Name of the base model in responses."""
    lora: LoraSpec
    """Shapes of the hypernetwork's adapters: the modules that get slots, and the maximum rank."""
    max_loras: int
    """Adapters resident at once, and therefore the most that run in one step."""
    max_model_len: int
    """Context in tokens: prompt and completion together."""
    max_num_seqs: int
    """Sequences in one step. Further sequences wait in vLLM's queue."""
    kv_cache_bytes: int | None
    """Size of the KV cache in bytes. None: vLLM's usual share of the device, which suits a GPU."""
    tensor_parallel: int
    """Devices that share the model, each with a slice of every layer and adapter.

    On a CPU: processes.
    """
    dtype: str
    """Data type of the base model, in vLLM's names. `resolved_dtype` resolves "auto" on a CPU."""
    cpu_threads: int | None
    """Threads of each engine process on a CPU. None: all available cores but one, divided by the
    number of processes. The spare core serves HTTP and the hypernetwork: an engine that takes it
    too only waits longer."""
    patches: PatchSelection
    """Which optional patches of vLLM are active."""
    share_device_memory: bool
    """Pass adapters to the engine core as handles on device memory. Needs `tensor_parallel` 1."""

    @property
    def slot_rank(self) -> int:
        """The smallest of vLLM's ranks that holds the hypernetwork's adapters."""
        return next(rank for rank in RANKS if rank >= self.lora.rank)

    def resolved_dtype(self, cpu: Mapping[str, Any] | None) -> str:
        """The data type to request from vLLM.

        A CPU without bf16 dot products emulates them. On Zen 3 bf16 matrix products have a tenth of
        float32's speed, and the engine a quarter of its tokens per second. On such a CPU "auto" is
        float32.

        Args:
            cpu: `torch.cpu.get_capabilities()`, or None for an engine on another device.
        """
        if self.dtype != "auto" or cpu is None:
            return self.dtype
        return "auto" if has_native_bf16(cpu) else "float32"

    def engine_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `vllm.AsyncEngineArgs`."""
        return {
            "model": self.model,
            "served_model_name": self.model_name,
            "dtype": self.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "kv_cache_memory_bytes": self.kv_cache_bytes,
            "tensor_parallel_size": self.tensor_parallel,
            "enable_lora": True,
            "max_loras": self.max_loras,
            # As many adapters on the host as slots, so that vLLM never evicts on its own.
            "max_cpu_loras": self.max_loras,
            "max_lora_rank": self.slot_rank,
            "lora_target_modules": [module.name for module in self.lora.modules],
            "worker_extension_cls": "server.engine.patches.adapter_loader.WorkerExtension",
            "use_tqdm_on_load": False,
        }

    def environment(self, *, cpu: bool, cores: int) -> dict[str, str]:
        """Environment variables for vLLM. Variables that are already set take precedence."""
        variables = {
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_DO_NOT_TRACK": "1",
            # After a stop string, vLLM's front end must abort the request before the caller learns
            # that the request is finished. Otherwise the adapter could be evicted while the core
            # still uses it. vLLM keeps this order only within one chunk of outputs, so a step is
            # one chunk.
            "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": str(max(128, self.max_num_seqs)),
        }
        if cpu:
            variables |= {
                # A single worker shares the core's process. A process of its own costs 600 MB and a
                # message per step.
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if self.tensor_parallel == 1 else "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(self.cpu_threads or max(1, (cores - 1) // self.tensor_parallel)),
                # Waiting threads must sleep soon: with spinning threads and one more busy process,
                # steps were measured to take twenty times as long. They spin briefly first, because
                # the next matrix product often comes before a sleeping thread would have woken up.
                "OMP_WAIT_POLICY": "PASSIVE",
                "GOMP_SPINCOUNT": GOMP_SPIN_COUNT,
            }
        return variables
