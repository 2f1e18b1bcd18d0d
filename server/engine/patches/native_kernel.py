"""Compiles the LoRA kernel `add_lora.cpp` for this machine when an engine starts.

A decode step of a small model computes a hundred LoRA products of a few rows each. A matrix library
takes 15 to 20 us for each in bf16, a tenth of it for the arithmetic. The source is short and
includes no headers of torch, so it compiles in a second. Compiling at every start is simpler than
shipping binaries for all processors. Without a compiler, `cpu_lora` uses matrix products.
"""

from __future__ import annotations

import ctypes
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("add_lora.cpp")
COMPILERS = ("g++", "clang++")
COMPILER_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
OPENMP_FLAGS = ("-fopenmp",), ()
"""Flags to try in order: with OpenMP, which shares torch's libgomp and threads,
then single-threaded.
"""
COMPILE_TIMEOUT_S = 60

MAX_RANK = 512
"""Maximum rank, as in the source."""
DTYPES = {torch.float32: "add_lora_float32", torch.bfloat16: "add_lora_bfloat16"}

log = logging.getLogger(__name__)


class SliceDescriptor(ctypes.Structure):
    """The source's `SliceDescriptor`: A and B of all slots, first and number of output columns,
    rank.
    """

    _fields_ = [
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("start", ctypes.c_int64),
        ("out", ctypes.c_int64),
        ("rank", ctypes.c_int64),
    ]


class LayerDescriptor:
    """Addresses of the slices of one packed layer. The tensors must outlive it.

    Args:
        slices: for each slice its first output column, A [slots rank, in], B [slots rank, out],
            both contiguous, and its rank.
    """

    def __init__(self, slices: Sequence[tuple[int, Tensor, Tensor, int]]) -> None:
        descriptors = [
            SliceDescriptor(a.data_ptr(), b.data_ptr(), start, b.shape[1], rank) for start, a, b, rank in slices
        ]
        self._descriptors = (SliceDescriptor * len(descriptors))(*descriptors)
        self.address = ctypes.addressof(self._descriptors)
        self.count = len(descriptors)
        tensors = [tensor for _, a, b, _ in slices for tensor in (a, b)]
        dtypes = {tensor.dtype for tensor in tensors}
        fits = all(t.is_contiguous() for t in tensors) and all(rank <= MAX_RANK for *_, rank in slices)
        self.dtype = dtypes.pop() if len(dtypes) == 1 and fits else None
        """Data type of all tensors. None if the kernel does not support them."""


class Kernel:
    """The compiled kernel."""

    def __init__(self, path: Path) -> None:
        library, number, pointer = ctypes.CDLL(str(path)), ctypes.c_int64, ctypes.c_void_p
        self._functions: dict[torch.dtype | None, Any] = {}
        for dtype, name in DTYPES.items():
            function = self._functions[dtype] = getattr(library, name)
            function.restype = None
            function.argtypes = [
                *(pointer, number, pointer, number),  # y, x
                *(pointer, pointer, number),  # tokens, slots
                *(number, pointer, number, ctypes.c_float),
            ]

    def add_lora(
        self, y: Tensor, x: Tensor, layer: LayerDescriptor, tokens: Tensor, slots: Tensor, scale: float
    ) -> bool:
        """Add the LoRA of each row's adapter to y, in place, if the kernel supports the tensors.

        Args:
            y: output of a packed layer. [rows, sum of outs]
            x: its input. [rows, in]
            layer: its slices.
            tokens: rows that have an adapter, sorted by slot. [n], int64
            slots: slot of each of these rows. [n], int64
            scale: factor on B A x.

        Returns:
            Whether the kernel supports the tensors. If not, y is unchanged.
        """
        function = self._functions.get(layer.dtype)
        if function is None or not (x.dtype is y.dtype is layer.dtype) or not x.stride(1) == y.stride(1) == 1:
            return False
        function(
            *(y.data_ptr(), y.stride(0), x.data_ptr(), x.stride(0)),
            *(tokens.data_ptr(), slots.data_ptr(), tokens.shape[0]),
            *(x.shape[1], layer.address, layer.count, scale),
        )
        return True


@cache
def load_kernel() -> Kernel | None:
    """Compile the kernel, once per process.

    None if no C++ compiler is installed, or if compiling fails.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.info("no C++ compiler found, LoRA on the CPU uses slower matrix products: install g++")
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "add_lora.so"
        failure = ""
        for threads in OPENMP_FLAGS:
            try:
                command = [compiler, *COMPILER_FLAGS, *threads, "-o", str(target), str(SOURCE)]
                subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_TIMEOUT_S)
                return Kernel(target)  # stays loaded when its file is deleted
            except (OSError, subprocess.SubprocessError) as error:
                stderr = getattr(error, "stderr", None) or b""
                failure = f"{error} {stderr.decode()[-500:]}"
        log.warning(
            "%s cannot compile %s, LoRA uses slower matrix products: %s", compiler, SOURCE.name, failure
        )
        return None
