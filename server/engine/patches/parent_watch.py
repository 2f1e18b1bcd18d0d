"""Ties the lifetime of the engine's processes to the server's."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess

ENGINE_PROCESS_PREFIXES = ("EngineCore", "VllmWorker")
"""Prefixes of vLLM's process names."""


def exit_with_parent() -> None:
    """Make this process exit when its parent does, and ignore Ctrl-C. Only affects the engine's
    processes.

    A server that is killed cannot stop its engine. The core would keep its memory forever. Ctrl-C
    reaches every process of the terminal's process group. The core would abort requests while the
    server drains them, so it gets a process group of its own.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith(ENGINE_PROCESS_PREFIXES):
        return
    os.setpgid(0, 0)
    threading.Thread(target=_exit_after, args=(parent,), name="t2l-parent-watch", daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
