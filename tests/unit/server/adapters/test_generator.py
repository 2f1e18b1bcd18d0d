"""Batches of adapters are timed per stage, and the heap is trimmed now and then."""

from __future__ import annotations

import itertools

import pytest

from server.adapters import heap
from server.adapters.generator import BatchGenerator
from tests.support.server_fakes import FakeGenerator


def test_each_batch_is_timed_in_two_stages() -> None:
    ticks = itertools.count()
    generate = BatchGenerator(FakeGenerator(), clock=lambda: float(next(ticks)))
    assert [(adapter.embed_s, adapter.generate_s) for adapter in generate(["a", "b"])] == [(1.0, 1.0)] * 2


def test_heap_is_trimmed_once_per_so_many_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []
    monkeypatch.setattr(heap, "trim_heap", lambda: trims.append(1))
    generate = BatchGenerator(FakeGenerator())
    for _ in range(3):
        generate(["x"] * (heap.ADAPTERS_PER_TRIM // 2))
    assert len(trims) == 1


def test_trimming_the_heap_raises_nothing() -> None:
    heap.trim_heap()
