"""The engine's processes end when the server does, however it ends, and not before it says so."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess

ENGINE_PROCESS_PREFIXES = ("EngineCore", "VllmWorker")
"""How vLLM's names for its processes begin."""


def exit_with_parent() -> None:
    """Tie this process to its parent, if it is one of the engine's. Calling it in another changes nothing.

    A server that is killed outright cannot end its engine: left alone the core would keep its memory for good.
    And Ctrl-C reaches every process of the terminal's group: the core would drop what runs while the
    server drains.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith(ENGINE_PROCESS_PREFIXES):
        return
    os.setpgid(0, 0)
    threading.Thread(target=_exit_after, args=(parent,), name="t2l-parent-watch", daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
