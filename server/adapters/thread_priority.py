"""Scheduling priority of the thread that generates adapters."""

from __future__ import annotations

import os
import sys
import threading

NICENESS = 10
"""Niceness of the thread that generates adapters, so that running streams have priority over new
adapters. On an idle core the thread is as fast as before."""


def lower_thread_priority() -> None:
    """Raise the niceness of the calling thread to `NICENESS`. Linux only: elsewhere threads have
    none.

    A higher niceness stays as it is, because a process may not raise its own priority.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
