"""Runs at the start of vLLM's processes (`vllm.general_plugins`): adapters from memory, faults on CPU mended.

vLLM calls `register` in the front end, the engine core and every worker, maybe
more than once.
"""

from __future__ import annotations

import logging
import os

from server.engine.patches import (
    adapter_loader,
    cpu_lora,
    cpu_ops,
    parent_watch,
    seeded_sampling,
    stacked_slots,
)

PATCHED_VERSION = "0.32."
"""The releases whose CPU operator was read and found wrong; others keep their own."""

log = logging.getLogger(__name__)

_done = False


def register() -> None:
    """Install the in-memory loader and, on CPU, what is mended there. Calling it again changes nothing."""
    global _done  # noqa: PLW0603 - a process has one vLLM to patch
    if _done:
        return
    _done = True

    parent_watch.exit_with_parent()
    from vllm.lora.worker_manager import WorkerLoRAManager

    WorkerLoRAManager._load_adapter = adapter_loader.wrap_load_adapter(WorkerLoRAManager._load_adapter)
    if should_patch_cpu_lora():
        cpu_lora.install()
    if should_patch_cpu_ops():
        cpu_ops.install()
    if should_patch_seeded_sampling():
        seeded_sampling.install()
    if should_patch_stacked_slots():
        stacked_slots.install()


def should_patch_stacked_slots() -> bool:
    """Whether adapters may go into their slots without vLLM's layer-by-layer loop."""
    import vllm

    return vllm.__version__.startswith(PATCHED_VERSION) and os.environ.get("T2L_STACKED_SLOTS", "1") != "0"


def on_known_cpu() -> bool:
    """Whether this process computes on a CPU, with a release whose ways there were read."""
    import vllm
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu()) and vllm.__version__.startswith(PATCHED_VERSION)


def should_patch_seeded_sampling() -> bool:
    """Whether this process samples with a release that a seeded prompt in pieces can kill."""
    return on_known_cpu()


def should_patch_cpu_ops() -> bool:
    """Whether this process may call kernels that vLLM ships but does not call on a CPU."""
    return on_known_cpu() and os.environ.get("T2L_CPU_OPS", "1") != "0"


def should_patch_cpu_lora() -> bool:
    """Whether this process computes LoRA on CPU with an operator known to be wrong."""
    import vllm
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or os.environ.get("T2L_CPU_LORA_KERNEL", "1") == "0":
        return False
    if not vllm.__version__.startswith(PATCHED_VERSION):
        log.warning(
            "vLLM %s is not %sx: its own CPU LoRA operator stays, which may answer base requests "
            "wrongly when they run beside adapted ones",
            vllm.__version__,
            PATCHED_VERSION,
        )
        return False
    return True
