"""What this machine computes fast."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names that `torch.cpu.get_capabilities` gives to bf16 dot products: AVX-512, AMX, Arm."""


def has_native_bf16(cpu: Mapping[str, Any]) -> bool:
    """Whether a CPU of these capabilities has bf16 dot products.

    Without them bf16 matrices are multiplied through a slow detour: on Zen 3 a tenth of
    the speed of float32. With AMX, bf16 is four times as fast.
    """
    return any(cpu.get(name) for name in BF16_INSTRUCTIONS)


def fastest_dtype(device: str) -> torch.dtype:
    """The number format in which this machine multiplies matrices fastest: bf16 where it can, else fp32."""
    slow = torch.device(device).type == "cpu" and not has_native_bf16(torch.cpu.get_capabilities())
    return torch.float32 if slow else torch.bfloat16


def can_compile(device: str) -> bool:
    """Whether torch.compile has what it needs: on a CPU that is a C++ compiler."""
    return torch.device(device).type != "cpu" or any(map(shutil.which, ("g++", "clang++")))
