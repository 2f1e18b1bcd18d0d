"""One line per request, as text or JSON, on stderr.

A line says who asked what of which route and how it went: request id, method,
route template, status, seconds, and notes that the service adds (adapter id,
where it came from, tokens). Never a description, a prompt or a completion: logs
travel further than their author expects.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal

from server.errors import ServiceError

REQUEST = logging.getLogger("t2l.request")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the current task works for."""

_log_fields: ContextVar[dict[str, Any] | None] = ContextVar("log_fields", default=None)


def begin_log_fields() -> dict[str, Any]:
    """Start collecting log fields for the current request; return the dict that collects them."""
    fields: dict[str, Any] = {}
    _log_fields.set(fields)
    return fields


def add_log_fields(**values: Any) -> None:
    """Add to the line that will be logged for the request at hand; without one, nothing happens."""
    fields = _log_fields.get()
    if fields is not None:
        fields.update(values)


def log_service_error(error: ServiceError) -> None:
    """Note an error that a client gets; the server's own mistakes are logged with their causes as well."""
    add_log_fields(error=error.code)
    if error.status == 500:
        REQUEST.error("a request failed: %s", error.message, exc_info=error)


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Send all logs of the process to stderr in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These say on INFO what our request line says better, or too often.
    for noisy in ("httpx", "uvicorn.error", "uvicorn.access", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


class TextFormatter(logging.Formatter):
    """`time level logger [request id] message key=value ...`."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        given = getattr(record, "request_id", None)
        where = f" [{given}]" if given else ""
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = (
            f"{self.formatTime(record)} {record.levelname} {record.name}{where} {record.getMessage()}{fields}"
        )
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if given := getattr(record, "request_id", None):
            line["request_id"] = given
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
