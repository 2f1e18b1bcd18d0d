"""Handles on device memory, which pass weights to the engine's process without copying them.

A hypernetwork on the engine's own GPU generates adapters there. Without a handle each adapter is
copied to the host and back. The handle is CUDA's (`cudaIpcGetMemHandle`) through torch's storages.
CPU memory is shared by name, which is how the tests cover this path. It has not been run on a GPU,
and is off unless `T2L_SHARE_DEVICE_MEMORY=1`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DeviceHandle = list[Any]
"""Kind of memory, number of elements, offset in the storage, and the storage's handle.

Plain values only.
"""


def export_handle(flat: Tensor) -> tuple[DeviceHandle, Tensor]:
    """Export a handle on a bf16 vector.

    Returns it with the tensor to keep alive until it is imported.
    """
    if flat.is_cuda:
        handle = flat.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
        return ["cuda", flat.numel(), flat.storage_offset(), *handle], flat
    shared = flat.clone()  # sharing moves a storage into shared memory; the server's own stays where it is
    return ["cpu", shared.numel(), 0, *shared.untyped_storage()._share_filename_cpu_()], shared


def import_handle(handle: DeviceHandle, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy the exported vector to a device. Afterwards the exporter may free its memory."""
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
