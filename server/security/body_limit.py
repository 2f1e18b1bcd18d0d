"""Refuses bodies that are too large, before they are in memory, however they are sent."""

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
"""How long a body may take to arrive."""
_MAX_BUFFERED_BYTES = 64 * 2**20
"""How much of bodies that are still arriving is held, all clients together."""
_LINGER_BYTES = 16 * 2**20
_LINGER_S = 5.0
"""How much of a refused body is read, so that the client can hear the refusal."""


class BodyLimit:
    """Pure ASGI middleware: reads the body, up to the limit, and hands it on whole.

    Content-Length is believed when it is too large, and checked by counting when
    it is not: a chunked body has none.
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
            # What may still be unread makes the connection useless for another request.
            await error_response(error, {"connection": "close"})(scope, receive, send)
            return

        if body is None:
            add_log_fields(client="left")
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client left instead.

        Raises:
            PayloadTooLargeError: it is larger than the limit.
            BodyTimeoutError: it is still not there.
            OverloadedError: too much is on its way from too many clients.
        """
        for name, value in scope["headers"]:
            if name == b"content-length":
                if not value.isdigit():
                    raise InvalidRequestError("Content-Length is not a number", code="invalid_header")
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
                        raise OverloadedError("too many bodies are arriving at once", code="too_many_requests")
        except TimeoutError:
            raise BodyTimeoutError(f"the body did not arrive within {_READ_TIMEOUT_S:.0f} seconds") from None
        finally:
            self._buffered -= len(body)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise PayloadTooLargeError(f"the body has more than {self._max_bytes} bytes")


def _expects_continue(scope: Scope) -> bool:
    """Whether the client sends its body only when told to go on: to read from it would tell it."""
    return any(name == b"expect" for name, _ in scope["headers"])


async def _lingering_close(receive: Receive) -> None:
    """Read and forget a while: closing on a client that still sends would reset its connection.

    The reset would overtake the answer, and the client never learn why.
    """
    read = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while read < _LINGER_BYTES:
                message = await receive()
                read += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
