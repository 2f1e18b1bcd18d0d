"""Buffers are never shared, and exhausted memory raises when a buffer is acquired."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from server.adapters import buffers as module
from server.adapters.buffers import BufferPool
from tests.support.server_fakes import SPEC


def test_pooled_buffer_is_acquired_once():
    ahead = BufferPool(SPEC)
    ahead.fill()
    ahead.fill()
    first, second = ahead.acquire(), ahead.acquire()
    assert first.shape == second.shape == (SPEC.num_parameters,) and first.dtype == torch.bfloat16
    assert first.data_ptr() != second.data_ptr()


def test_threads_never_share_buffers():
    ahead = BufferPool(SPEC)

    def work(n: int) -> torch.Tensor:
        ahead.fill()
        return ahead.acquire().fill_(n)

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(work, range(200)))
    assert len({memory.data_ptr() for memory in taken}) == 200
    assert all((memory == n).all() for n, memory in enumerate(taken))


def test_exhausted_memory_raises_on_acquire(monkeypatch):
    def full(*_: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(module.mmap, "mmap", full)
    ahead = BufferPool(SPEC)
    ahead.fill()
    with pytest.raises(OSError, match="Cannot allocate"):
        ahead.acquire()
