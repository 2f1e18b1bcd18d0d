"""Weights lent to the engine's process where they lie: what crosses is a handle, not bytes.

An adapter fresh from a hypernetwork on the engine's own GPU would otherwise leave the device and come
back. The handle is CUDA's (`cudaIpcGetMemHandle`), through torch's storages, as trainers hand new
weights to vLLM. Memory of a CPU is lent by name, which is how the path is tested; it has not been run
on a GPU, and is off unless `T2L_SHARE_DEVICE_MEMORY=1`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DeviceHandle = list[Any]
"""Kind of memory, length in numbers, place in the storage, and the storage's handle: plain values only."""


def export_handle(flat: Tensor) -> tuple[DeviceHandle, Tensor]:
    """A bf16 vector as something to send, and what must be kept alive until it has been borrowed."""
    if flat.is_cuda:
        handle = flat.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
        return ["cuda", flat.numel(), flat.storage_offset(), *handle], flat
    shared = flat.clone()  # sharing moves memory, and the server's own stays where it is
    return ["cpu", shared.numel(), 0, *shared.untyped_storage()._share_filename_cpu_()], shared


def import_handle(handle: DeviceHandle, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy of what was lent, on a device; when this returns the lender may have its memory back."""
    kind, length, offset, *storage_handle = handle
    storages = torch.UntypedStorage
    open_storage = storages._new_shared_cuda if kind == "cuda" else storages._new_shared_filename_cpu
    storage = open_storage(*storage_handle)
    exported = torch.empty(0, dtype=torch.bfloat16, device=storage.device)
    exported.set_(storage, offset, (length,), (1,))
    imported: Tensor = exported.to(device, dtype, copy=True)
    if imported.is_cuda:
        torch.cuda.current_stream(imported.device).synchronize()
    return imported
