"""Gives every request an id, a log line and metrics,
and answers exceptions that no handler caught.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.error_response import error_response
from server.errors import ServiceError
from server.observability.logging import REQUEST, begin_log_fields, request_id
from server.observability.metrics import Metrics

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Polled every few seconds by machines: logged at DEBUG."""


class RequestContext:
    """Pure ASGI middleware. It must be the outermost one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = self._clock()
        identifier = _request_id(scope)
        request_id.set(identifier)
        log_fields = begin_log_fields()
        status = 499  # unless a response starts: the client disconnected, or the server stops

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identifier.encode())]
            await send(message)

        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, receive, send_with_id)
        except Exception:
            REQUEST.exception("unexpected error")
            if status != 499:
                raise  # the response has begun: only a closed connection can still tell the client
            error = ServiceError("internal error: the server's log has the details")
            self._metrics.rejections.labels(error.code).inc()
            await error_response(error)(scope, receive, send_with_id)
        finally:
            self._log_and_count(scope, status, self._clock() - start, log_fields)

    def _log_and_count(self, scope: Scope, status: int, seconds: float, log_fields: dict[str, object]) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        # The template, such as /v1/adapters/{adapter_id}: no label holds a path that a client
        # chose.
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(method, route).observe(seconds)
        level = logging.DEBUG if route in _PROBES else logging.INFO
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            **log_fields,
        }
        REQUEST.log(level, "request", extra={"fields": fields})


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTED_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid4().hex
