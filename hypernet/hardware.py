"""The fastest dtype of this machine, and whether torch.compile works on it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names of bf16 dot products in `torch.cpu.get_capabilities`: AVX-512, AMX and Arm."""


def has_native_bf16(cpu: Mapping[str, Any]) -> bool:
    """Whether a CPU with these capabilities has bf16 dot products.

    Without them bf16 products are emulated: on Zen 3 at a tenth of float32's speed. With AMX, bf16
    is four times as fast as float32.
    """
    return any(cpu.get(name) for name in BF16_INSTRUCTIONS)


def fastest_dtype(device: str) -> torch.dtype:
    """The dtype of the fastest matrix products on a device: bf16 where it is native,
    otherwise fp32.
    """
    slow = torch.device(device).type == "cpu" and not has_native_bf16(torch.cpu.get_capabilities())
    return torch.float32 if slow else torch.bfloat16


def device_problem(name: str) -> str | None:
    """Why torch cannot use a device on this machine, in one line. None: it can."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        return f"{name} cannot be used: {str(error).splitlines()[0]}"
    return None


def can_compile(device: str) -> bool:
    """Whether torch.compile can run. On a CPU it needs a C++ compiler."""
    return torch.device(device).type != "cpu" or any(map(shutil.which, ("g++", "clang++")))
