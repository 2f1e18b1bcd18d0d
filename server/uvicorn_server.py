"""Runs the app under uvicorn, with a drain that can be watched from outside.

On SIGTERM or SIGINT uvicorn by itself would close its port at once and, once
done, kill the process with the same signal. Here the port stays open while the
server drains, so that `/ready` says 503 and a late request gets a clear error
instead of a refused connection; and a drained server exits with 0.
"""

from __future__ import annotations

import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from server.lifecycle import Lifecycle

log = logging.getLogger("t2l")

_GRACEFUL_CLOSE_S = 2
"""What answers still under way get, after the drain, before their connections are cut."""


class Server(uvicorn.Server):
    """Uvicorn, ending when the lifecycle says so."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_timeout_s = drain_timeout_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends the drain."""
        second_signal = self._lifecycle.phase == "draining"
        self._lifecycle.drain(0 if second_signal else self._drain_timeout_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, and say which: it may have been given as 0."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("listening", extra={"fields": {"url": f"http://{host}:{port}"}})

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop, asked ten times a second."""
        if self._lifecycle.phase == "draining":
            # Not in the signal handler, which may interrupt any code.
            self._lifecycle.apply_drain_deadline()
        return await super().on_tick(counter) or self._lifecycle.finished


def serve(app: FastAPI, host: str, port: int, drain_timeout_s: float) -> int:
    """Serve until a signal; the process's exit status: 0, or 1 if it could not start or its engine died."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACEFUL_CLOSE_S,
    )
    lifecycle: Lifecycle = app.state.lifecycle
    Server(config, lifecycle, drain_timeout_s).run()
    return 1 if lifecycle.failure is not None else 0
