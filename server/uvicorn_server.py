"""Runs the app under uvicorn, with a drain that load balancers and clients can see.

On SIGTERM or SIGINT uvicorn's default is to close its port at once and to end the process by that
signal. Here the port stays open while the server drains: `/ready` answers 503, and a late request
gets an error instead of a refused connection. A drained server exits with status 0.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from hypernet.errors import T2lError
from server.lifecycle import Lifecycle

log = logging.getLogger("t2l")

_GRACEFUL_CLOSE_S = 2
"""Seconds that open responses get after the drain before their connections are closed."""
_BACKLOG = 2048


class AddressError(T2lError):
    """The server cannot listen on the given host and port."""


class Server(uvicorn.Server):
    """Uvicorn, ended by the lifecycle."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_timeout_s = drain_timeout_s
        self._draining_since: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. A second signal ends the drain."""
        second_signal = self._lifecycle.phase == "draining"
        self._lifecycle.drain(0 if second_signal else self._drain_timeout_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, and log the address: a port given as 0 is known only now."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("listening", extra={"fields": {"url": url(host, port)}})

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop. Uvicorn calls this ten times per second."""
        if self._lifecycle.phase == "draining":
            # Not in the signal handler, which may interrupt any code.
            self._log_drain()
            self._lifecycle.apply_drain_deadline()
        return await super().on_tick(counter) or self._lifecycle.finished

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close connections and parts, and log the end."""
        in_flight = self._lifecycle.in_flight
        await super().shutdown(sockets)
        fields: dict[str, object] = {"unfinished": in_flight}
        if self._draining_since is not None:
            fields["drain_seconds"] = round(time.monotonic() - self._draining_since, 1)
        if self._lifecycle.failure is not None:
            fields["reason"] = self._lifecycle.failure
        log.info("stopped", extra={"fields": fields})

    def _log_drain(self) -> None:
        if self._draining_since is None:
            self._draining_since = time.monotonic()
            fields = {"in_flight": self._lifecycle.in_flight, "timeout_s": self._drain_timeout_s}
            log.info("draining", extra={"fields": fields})


def url(host: str, port: int) -> str:
    """The URL of an address. An IPv6 address is written in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> list[socket.socket]:
    """Open a listening socket on each address of a host name.

    Args:
        host: name or address of this machine.
        port: 0 takes a free port, the same one for all addresses.

    Raises:
        AddressError: the host is not this machine's, or the port is in use or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else error
        raise AddressError(f"the host {host} has no address ({reason}): set T2L_HOST or --host") from None
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        sockets.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # As in asyncio: `::` must not take the IPv4 port, too, which another process may use.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address[0], port, *address[2:]))
            listener.listen(_BACKLOG)
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise AddressError(_cannot_listen(host, port, error)) from None
        port = listener.getsockname()[1]
    return sockets


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: stop the other process, or set T2L_PORT or --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: set T2L_HOST or --host"
    return f"cannot listen on port {port} of {host} ({error.strerror}): set T2L_PORT or --port"


def serve(app: FastAPI, sockets: list[socket.socket], drain_timeout_s: float) -> int:
    """Serve until a signal or a failure.

    Returns:
        The exit status: 0, or 1 if the server could not start or its engine died.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACEFUL_CLOSE_S,
    )
    lifecycle: Lifecycle = app.state.lifecycle
    Server(config, lifecycle, drain_timeout_s).run(sockets)
    return 1 if lifecycle.failure is not None else 0
