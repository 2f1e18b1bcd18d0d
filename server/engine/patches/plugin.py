"""Installs the patches in each of vLLM's processes: the entry point of `vllm.general_plugins`.

vLLM calls `register` in the front end, in the engine core and in every worker, possibly more than
once per process.
"""

from __future__ import annotations

import logging

from server.engine.patches import (
    adapter_loader,
    cpu_lora,
    cpu_ops,
    parent_watch,
    seeded_sampling,
    stacked_slots,
)
from server.engine.patches.selection import PatchSelection

PATCHED_VERSION = "0.32."
"""Prefix of the vLLM releases that the optional patches support. Other releases are not patched."""

log = logging.getLogger(__name__)

_registered = False


def register() -> None:
    """Install the adapter loader, and the optional patches that are selected and apply here.
    Idempotent.

    Raises:
        ValueError: `T2L_VLLM_PATCHES` does not parse.
    """
    global _registered  # noqa: PLW0603 - a process has one vLLM to patch
    if _registered:
        return
    _registered = True

    patches = PatchSelection.from_environment()
    parent_watch.exit_with_parent()
    adapter_loader.install()
    if should_patch_cpu_lora(patches):
        cpu_lora.install(compile_kernel=patches.cpu_lora == "native")
    if should_patch_cpu_ops(patches):
        cpu_ops.install()
    if should_patch_seeded_sampling(patches):
        seeded_sampling.install()
    if should_patch_stacked_slots(patches):
        stacked_slots.install()


def should_patch_cpu_lora(patches: PatchSelection) -> bool:
    """Whether to replace the LoRA operator of a CPU.

    Warns if vLLM's own operator may stay (wrong in 0.32).
    """
    import vllm

    if not _on_cpu() or patches.cpu_lora == "off":
        return False
    if not _is_patched_version():
        log.warning(
            "vLLM %s is not %sx, so its own LoRA operator for CPUs stays in use. In 0.32 that operator answers "
            "a request without an adapter wrongly if it shares a step with adapted requests",
            vllm.__version__,
            PATCHED_VERSION,
        )
        return False
    return True


def should_patch_cpu_ops(patches: PatchSelection) -> bool:
    """Whether to use vLLM's CPU kernels for norms and rotary positions."""
    return patches.cpu_ops and _on_cpu() and _is_patched_version()


def should_patch_seeded_sampling(patches: PatchSelection) -> bool:
    """Whether to repair seeded sampling of chunked prompts on a CPU."""
    return patches.seeded_sampling and _on_cpu() and _is_patched_version()


def should_patch_stacked_slots(patches: PatchSelection) -> bool:
    """Whether to stack the LoRA slots of all layers."""
    return patches.stacked_slots and _is_patched_version()


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _is_patched_version() -> bool:
    import vllm

    return bool(vllm.__version__.startswith(PATCHED_VERSION))
