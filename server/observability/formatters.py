"""Formats of a log line: text for people, JSON for programs. Times are ISO 8601 in UTC."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any


def iso_time(seconds: float) -> str:
    """Unix time as ISO 8601 in UTC with milliseconds: `2026-11-26T01:25:31.042Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`time level logger [request id] message key=value ...`, then the exception's lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        request_id = getattr(record, "request_id", None)
        where = f" [{request_id}]" if request_id else ""
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        time = iso_time(record.created)
        line = f"{time} {record.levelname} {record.name}{where} {record.getMessage()}{fields}"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, message, fields,
    and request_id and exception if there are any.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, Any] = {
            "time": iso_time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
