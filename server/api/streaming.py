"""Cancellation when a client disconnects, and server-sent events.

A generation occupies the engine until it ends, so every route that runs one watches its client.
When the client disconnects, the work is cancelled and its contexts (lease, engine request) are
closed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import ServiceError
from server.observability.logging import add_log_fields, log_service_error

log = logging.getLogger("t2l.stream")

SEND_TIMEOUT_S = 60.0
"""Seconds without reading after which a client counts as disconnected."""


class ClientDisconnectedError(Exception):
    """The client closed its connection before the response was complete."""


@asynccontextmanager
async def cancel_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the context's body when the client disconnects.

    The request's own body must have been read before.

    Args:
        receive: the request's ASGI channel.

    Raises:
        ClientDisconnectedError: in place of the cancellation.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    disconnected = False

    async def watch() -> None:
        nonlocal disconnected
        while (await receive())["type"] != "http.disconnect":
            pass
        disconnected = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Like asyncio.timeout: a cancellation from outside still propagates.
        if disconnected and task.uncancel() <= cancelling:
            raise ClientDisconnectedError from None
        raise
    finally:
        watcher.cancel()


class EventStream(Response):
    """Server-sent events: one `data:` line of JSON each, errors in the usual shape,
    `[DONE]` at the end.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[BaseModel], on_error: Callable[[ServiceError], None]) -> None:
        """Take the events; the generator is closed however the stream ends.

        Args:
            events: the events' data.
            on_error: called with an error that ends the stream early.
        """
        # Proxies must neither cache nor buffer the events.
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or stop when the client disconnects."""
        async with aclosing(self._events):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async with cancel_on_disconnect(receive):
                    await self._send_events(send)
            except ClientDisconnectedError:
                add_log_fields(client="disconnected")
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        try:
            async for event in self._events:
                await _send_data(send, event.model_dump_json())
        except ServiceError as error:
            await self._send_error(send, error)
        except ClientDisconnectedError:
            raise
        except Exception:
            log.exception("unexpected error in a stream")
            await self._send_error(send, ServiceError("internal error: the server's log has the details"))
        await _send_data(send, "[DONE]")

    async def _send_error(self, send: Send, error: ServiceError) -> None:
        self._on_error(error)
        log_service_error(error)
        await _send_data(send, json.dumps(error.body()))


async def _send_data(send: Send, data: str) -> None:
    message = {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send(message)
    except TimeoutError:
        raise ClientDisconnectedError from None
