"""Compiles `add_lora.cpp` for this machine when an engine starts; an engine without a compiler does without.

One decode step of a small model has a hundred LoRA products of a few rows each. A matrix
library takes 15 to 20 us for one in bf16, of which the arithmetic is a tenth. The source is
two pages without headers of torch: a second of compiling at every start is cheaper than to
keep a binary and to know for which processor it was made.
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
"""With the threads that torch has (its libgomp is the one that is loaded), or where that fails with one."""
COMPILE_TIMEOUT_S = 60

MAX_RANK = 512
"""What the source has room for."""
DTYPES = {torch.float32: "add_lora_float32", torch.bfloat16: "add_lora_bfloat16"}

log = logging.getLogger(__name__)


class SliceDescriptor(ctypes.Structure):
    """One slice of a packed layer, as the source has it: A and B of all slots, its columns of y, its rank."""

    _fields_ = [
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("start", ctypes.c_int64),
        ("out", ctypes.c_int64),
        ("rank", ctypes.c_int64),
    ]


class LayerDescriptor:
    """Where the slices of one layer lie. Lives no longer than the tensors that it points to.

    Args:
        slices: per slice its first column, A [slots rank, in] and B [slots rank, out], each
            contiguous, and its rank.
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
        """Of all tensors; None if the source cannot take them."""


class Kernel:
    """The compiled source."""

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
        """Add each row's own LoRA to y, in place, if the tensors are of a kind that the source knows.

        Args:
            y: a packed layer's output. [rows, sum of outs]
            x: its input. [rows, in]
            layer: its slices.
            tokens: the rows that have an adapter, those of one slot side by side. [n], int64
            slots: the slot of each of them. [n], int64
            scale: a factor on B A x.

        Returns:
            Whether it was done.
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
    """The source compiled for this machine, once a process; None without a compiler that can."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.info("no C++ compiler: LoRA on the CPU is computed by matrix products, which takes longer")
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "add_lora.so"
        failure = ""
        for threads in OPENMP_FLAGS:
            try:
                command = [compiler, *COMPILER_FLAGS, *threads, "-o", str(target), str(SOURCE)]
                subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_TIMEOUT_S)
                return Kernel(target)  # stays mapped without its file
            except (OSError, subprocess.SubprocessError) as error:
                stderr = getattr(error, "stderr", None) or b""
                failure = f"{error} {stderr.decode()[-500:]}"
        log.warning("%s did not compile %s: %s", compiler, SOURCE.name, failure)
        return None
