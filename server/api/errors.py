"""Whatever goes wrong in a route leaves in the one error shape, framework errors included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from server.api.state import get_app_state
from server.api.streaming import ClientDisconnectedError
from server.error_response import error_response
from server.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, ServiceError
from server.observability.logging import add_log_fields, log_service_error

_CODES = {"missing": "missing_field", "extra_forbidden": "unknown_field", "json_invalid": "invalid_json"}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnectedError, _client_disconnected)


def _respond(request: Request, error: ServiceError, headers: dict[str, str] | None = None) -> Response:
    get_app_state(request).metrics.rejections.labels(error.code).inc()
    log_service_error(error)
    return error_response(error, headers)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _respond(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, to_invalid_request(error.errors()))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _respond(request, _from_http_exception(request, error), dict(error.headers or {}))


async def _client_disconnected(request: Request, error: Exception) -> Response:
    add_log_fields(client="left")
    return Response(status_code=499)  # nobody reads it; metrics and logs do


def to_invalid_request(errors: Sequence[Any]) -> InvalidRequestError:
    """One error for what pydantic found: the first one names the field, the rest are counted."""
    first = errors[0]
    kind: str = first["type"]
    place = [str(part) for part in first["loc"][1:]]
    if kind == "json_invalid":
        return InvalidRequestError(
            f"the body is not valid JSON: {first['ctx']['error']} at character {place[0]}", code="invalid_json"
        )
    param = first.get("ctx", {}).get("param") or ".".join(place)
    if not param:
        return InvalidRequestError(
            "the body must be a JSON object, sent as application/json", code="invalid_json"
        )
    more = f" ({len(errors) - 1} more fields are wrong)" if len(errors) > 1 else ""
    if kind == "extra_forbidden":
        message = f"there is no field {param}"
    elif kind == "missing":
        message = f"{param} is missing"
    else:
        message = f"{param}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return InvalidRequestError(message + more, param=param, code=_CODES.get(kind, "invalid_value"))


def _from_http_exception(request: Request, error: HTTPException) -> ServiceError:
    if error.status_code == 404:
        return NotFoundError(f"there is no route {request.url.path}", code="route_not_found")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        return MethodNotAllowedError(f"{request.url.path} answers {allowed}, not {request.method}")
    if error.status_code == 400:  # how the framework says that a body is not even text, or nested too deeply
        return InvalidRequestError("the body is not valid JSON", code="invalid_json")
    return ServiceError(str(error.detail))
