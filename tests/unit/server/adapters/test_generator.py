"""The thread that writes adapters: timed, out of the streams' way, and leaving no holes."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.adapters import generator
from tests.support.server_fakes import FakeGenerator


def test_each_batch_is_timed_in_two_parts() -> None:
    ticks = itertools.count()
    compute = generator.timed_batch(FakeGenerator(), clock=lambda: float(next(ticks)))
    assert [(w.embed_s, w.generate_s) for w in compute(["a", "b"])] == [(1.0, 1.0)] * 2


def test_free_memory_goes_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[int] = []
    monkeypatch.setattr(generator, "return_free_memory", lambda: returned.append(1))
    compute = generator.timed_batch(FakeGenerator())
    for _ in range(3):
        compute(["x"] * (generator.TRIM_EVERY // 2))
    assert len(returned) == 1


def test_returning_memory_harms_nothing() -> None:
    generator.return_free_memory()


def test_only_the_thread_that_asks_stands_back() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=generator.lower_thread_priority) as thread:
        assert thread.submit(niceness).result() == max(before, generator.NICENESS)
    assert niceness() == before
