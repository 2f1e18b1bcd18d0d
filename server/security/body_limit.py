"""Refuses request bodies that are too large before they fill the memory, chunked ones included."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.error_response import error_response
from server.errors import (
    BodyTimeoutError,
    InvalidRequestError,
    OverloadedError,
    PayloadTooLargeError,
    ServiceError,
)
from server.observability.logging import add_log_fields
from server.observability.metrics import Metrics

_READ_TIMEOUT_S = 60.0
"""Seconds that a body may take to arrive."""
_MAX_BUFFERED_BYTES = 64 * 2**20
"""Maximum bytes of unfinished bodies, all clients together."""
_LINGER_BYTES = 16 * 2**20
_LINGER_S = 5.0
"""Limits in bytes and seconds on reading the rest of a refused body (see `_lingering_close`)."""


class BodyLimit:
    """Pure ASGI middleware that reads the whole body, up to the limit, before the app runs.

    A Content-Length above the limit is refused at once. Otherwise the bytes are counted, because a
    chunked body has no Content-Length.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ServiceError as error:
            self._metrics.rejections.labels(error.code).inc()
            if not _expects_continue(scope):
                await _lingering_close(receive)
            # Unread bytes of the body make the connection unusable for another request.
            await error_response(error, {"connection": "close"})(scope, receive, send)
            return

        if body is None:
            add_log_fields(client="disconnected")
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, or None if the client disconnected.

        Raises:
            InvalidRequestError: Content-Length is not a number.
            PayloadTooLargeError: the body exceeds the limit.
            BodyTimeoutError: the body did not arrive in time.
            OverloadedError: all unfinished bodies together exceed their limit.
        """
        for name, value in scope["headers"]:
            if name == b"content-length":
                if not value.isdigit():
                    raise InvalidRequestError(
                        "the header Content-Length must be a number of bytes", code="invalid_header"
                    )
                self._check(int(value))
        body = bytearray()
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    piece: bytes = message.get("body", b"")
                    self._check(len(body) + len(piece))
                    if not message.get("more_body", False):
                        return bytes(body) + piece
                    body += piece
                    self._buffered += len(piece)
                    if self._buffered > _MAX_BUFFERED_BYTES:
                        raise OverloadedError(
                            "too many request bodies are arriving at once: try again shortly",
                            code="too_many_requests",
                        )
        except TimeoutError:
            raise BodyTimeoutError(f"the body did not arrive within {_READ_TIMEOUT_S:.0f} seconds") from None
        finally:
            self._buffered -= len(body)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise PayloadTooLargeError(
                f"the body has more than {self._max_bytes} bytes, the limit of this server"
            )


def _expects_continue(scope: Scope) -> bool:
    """Whether the client waits for `100 Continue`, which uvicorn sends on the first read of the
    body.
    """
    return any(name == b"expect" for name, _ in scope["headers"])


async def _lingering_close(receive: Receive) -> None:
    """Read and discard the rest of the body, within limits, before the connection closes.

    Closing while the client still sends would reset the connection. The reset can overtake the
    response, and the client would not see the error.
    """
    read = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while read < _LINGER_BYTES:
                message = await receive()
                read += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
