"""How an engine is sized and where it runs: one frozen record, and what vLLM must find in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypernet.config import LoraSpec
from hypernet.hardware import has_native_bf16
from server.engine.patches.selection import PatchSelection

MIB = 2**20

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The slot ranks that vLLM accepts."""

GOMP_SPIN_COUNT = "2000"
"""How often a waiting thread of a CPU engine looks before it sleeps: some 60 us, about what waking it
costs, so that it never loses more than twice the best (competitive spinning, Karlin et al. 1991)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything that `VllmEngine` is told. The settings hold the defaults (`server.app.engine_config`)."""

    model: str
    """Folder of the base model, or its hub id."""
    model_name: str
    """What clients call it."""
    lora: LoraSpec
    """What the hypernetwork writes: the modules that get slots, and the largest rank."""
    max_loras: int
    """Adapters resident at once, and therefore the most that run in one step."""
    max_model_len: int
    """Context in tokens: prompt and completion together."""
    max_num_seqs: int
    """Sequences in one step. Further sequences wait in vLLM's queue."""
    kv_cache_bytes: int | None
    """Size of the KV cache in bytes. None: vLLM's usual share of the device, which suits a GPU."""
    tensor_parallel: int
    """Devices that share the model, each with its slice of every layer and adapter; on a CPU, processes."""
    dtype: str
    """As vLLM names them; see `resolved_dtype` for what "auto" means on a CPU."""
    cpu_threads: int | None
    """Threads of each process of a CPU engine. None shares all cores that this process may use but one: that
    is the server's, its hypernetwork's and its clients'. What the engine gains by it, it loses waiting."""
    patches: PatchSelection
    """Which optional patches of vLLM are active."""
    share_device_memory: bool
    """Send an adapter to the core's process as a handle on its memory; for one device, not several ranks."""

    @property
    def slot_rank(self) -> int:
        """The smallest slot rank that holds the hypernetwork's adapters."""
        return next(rank for rank in RANKS if rank >= self.lora.rank)

    def resolved_dtype(self, cpu: Mapping[str, Any] | None) -> str:
        """The number format to ask vLLM for.

        A CPU without bf16 dot products multiplies bf16 matrices through a slow detour: on Zen 3 a tenth
        of the speed of float32, and a quarter of the tokens per second. So "auto" is float32 there.

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
            # One tier: what is registered is in a slot, so vLLM never evicts on its own.
            "max_cpu_loras": self.max_loras,
            "max_lora_rank": self.slot_rank,
            "lora_target_modules": [module.name for module in self.lora.modules],
            "worker_extension_cls": "server.engine.patches.adapter_loader.WorkerExtension",
            "use_tqdm_on_load": False,
        }

    def environment(self, *, cpu: bool, cores: int) -> dict[str, str]:
        """Variables that vLLM reads; whoever starts the server may have set others, which win."""
        variables = {
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_DO_NOT_TRACK": "1",
            # The front end must send the abort of a request that met its stop string before anybody
            # hears that the request is done, or its adapter could be evicted under it. vLLM keeps
            # that order only among outputs of one chunk.
            "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": str(max(128, self.max_num_seqs)),
        }
        if cpu:
            variables |= {
                # The only worker lives in the core's process: one of its own costs 600 MB and a hop per step.
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if self.tensor_parallel == 1 else "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(self.cpu_threads or max(1, (cores - 1) // self.tensor_parallel)),
                # Threads that wait must soon sleep: where they spin and somebody else wants a core too (the
                # server itself does), a step was seen to take twenty times as long. But the next product
                # is often nearer than the time that waking a sleeper takes.
                "OMP_WAIT_POLICY": "PASSIVE",
                "GOMP_SPINCOUNT": GOMP_SPIN_COUNT,
            }
        return variables
