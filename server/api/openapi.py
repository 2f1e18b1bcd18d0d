"""The OpenAPI document states what the server answers: one error shape, and no 422."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.schemas import ErrorOut

_DESCRIPTIONS = {
    400: "A field is wrong. `param` names it.",
    404: "There is no adapter with this id.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body was not sent as `application/json`.",
    429: "A bounded queue is full. `Retry-After` gives the seconds to wait.",
    500: "An internal error of the server.",
    503: "The server is starting or stopping, the request took too long, or the engine has died.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` for these error statuses."""
    return {status: {"model": ErrorOut, "description": _DESCRIPTIONS[status]} for status in statuses}


def document(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document, built once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # the server answers 400 instead
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
