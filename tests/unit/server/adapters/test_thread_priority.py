"""Only the thread that generates adapters gets a lower priority."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from server.adapters.thread_priority import NICENESS, lower_thread_priority


def test_priority_is_lowered_for_the_calling_thread_only() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=lower_thread_priority) as thread:
        assert thread.submit(niceness).result() == max(before, NICENESS)
    assert niceness() == before
