"""Errors as HTTP responses."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from server.errors import ServiceError


def error_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The HTTP response for an error."""
    all_headers = dict(headers or {})
    if error.retry_after_s is not None:
        all_headers["retry-after"] = str(error.retry_after_s)
    return JSONResponse(error.body(), error.status, all_headers)
