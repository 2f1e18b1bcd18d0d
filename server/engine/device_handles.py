"""Weights lent to the engine's process where they lie: what crosses is a handle, not bytes.

An adapter fresh from a hypernetwork on the engine's own GPU would otherwise leave the device and come
back. The handle is CUDA's (`cudaIpcGetMemHandle`), through torch's storages, as trainers hand new
weights to vLLM. Memory of a CPU is lent by name, which is how the path is tested; it has not been run
on a GPU, and is off unless `T2L_LEND_WEIGHTS=1`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Loan = list[Any]
"""Kind of memory, length in numbers, place in the storage, and the storage's handle: plain values only."""


def lend(flat: Tensor) -> tuple[Loan, Tensor]:
    """A bf16 vector as something to send, and what must be kept alive until it has been borrowed."""
    if flat.is_cuda:
        handle = flat.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
        return ["cuda", flat.numel(), flat.storage_offset(), *handle], flat
    lent = flat.clone()  # sharing moves memory, and the server's own stays where it is
    return ["cpu", lent.numel(), 0, *lent.untyped_storage()._share_filename_cpu_()], lent


def borrow(loan: Loan, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy of what was lent, on a device; when this returns the lender may have its memory back."""
    kind, length, offset, *handle = loan
    storages = torch.UntypedStorage
    storage = (
        storages._new_shared_cuda(*handle) if kind == "cuda" else storages._new_shared_filename_cpu(*handle)
    )
    there = torch.empty(0, dtype=torch.bfloat16, device=storage.device).set_(storage, offset, (length,), (1,))
    mine: Tensor = there.to(device, dtype, copy=True)
    if mine.is_cuda:
        torch.cuda.current_stream(mine.device).synchronize()
    return mine
