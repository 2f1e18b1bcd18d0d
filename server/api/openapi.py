"""The OpenAPI document says what the server really answers: one error shape, and no 422."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.schemas import ErrorOut

_MEANINGS = {
    400: "A field is wrong; `param` names it.",
    404: "There is no such adapter.",
    408: "The body does not arrive.",
    413: "The body is too large.",
    429: "A bounded queue is full; `Retry-After` says when to try again.",
    500: "The server's own fault.",
    503: "Starting, stopping, out of time, or the engine has died.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` for these error statuses."""
    return {status: {"model": ErrorOut, "description": _MEANINGS[status]} for status in statuses}


def document(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # validation errors are our 400
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
