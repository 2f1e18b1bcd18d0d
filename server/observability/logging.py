"""The log: one line per request and one per event of the server's life, as text or JSON, on stderr.

A request's line holds its id, method, route template, status, seconds, and the fields that the
service adds (adapter id and source, token counts). It never holds a description, a prompt or a
completion, because people other than the client read logs.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal

from server.errors import ServiceError
from server.observability.formatters import JsonFormatter, TextFormatter
from server.observability.json_output import capture_output, configure_vllm

REQUEST = logging.getLogger("t2l.request")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the current task serves."""

_log_fields: ContextVar[dict[str, Any] | None] = ContextVar("log_fields", default=None)


def begin_log_fields() -> dict[str, Any]:
    """Start collecting log fields for the current request; return the dict that collects them."""
    fields: dict[str, Any] = {}
    _log_fields.set(fields)
    return fields


def add_log_fields(**values: Any) -> None:
    """Add fields to the current request's log line. Outside of a request nothing happens."""
    fields = _log_fields.get()
    if fields is not None:
        fields.update(values)


def log_service_error(error: ServiceError) -> None:
    """Add a client's error to its request's log line; log a 500 with its cause, too."""
    add_log_fields(error=error.code)
    if error.status == 500:
        REQUEST.error("request failed: %s", error.message, exc_info=error)


def configure(level: str, log_format: Literal["text", "json"]) -> None:
    """Send all logs of the process to stderr in one format.

    With `json`, every line that the process or a child of it writes to stdout or stderr becomes one
    JSON object: see `json_output`.

    Args:
        level: name of the minimum level.
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # On INFO these repeat the request's line, or write too often.
    for noisy in ("httpx", "uvicorn.error", "uvicorn.access", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
        handler.setStream(capture_output())
        logging.captureWarnings(capture=True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
        configure_vllm()


def is_json() -> bool:
    """Whether the log is JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("t2l").critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log_uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
