"""Exception handlers: every error of a route or of the framework leaves in the one error shape."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from server.api.state import get_app_state
from server.api.streaming import ClientDisconnectedError
from server.api.validation import to_invalid_request
from server.error_response import error_response
from server.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, ServiceError
from server.observability.logging import add_log_fields, log_service_error


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
    return _respond(request, to_invalid_request(error.errors(), error.body))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return _respond(request, _from_http_exception(request, error), headers)


async def _client_disconnected(request: Request, error: Exception) -> Response:
    add_log_fields(client="disconnected")
    return Response(status_code=499)  # for metrics and logs: nobody receives it


def _from_http_exception(request: Request, error: HTTPException) -> ServiceError:
    if isinstance(error.__cause__, ServiceError):  # raised while the framework parsed the body
        return error.__cause__
    if error.status_code == 404:
        return NotFoundError(f"there is no route {request.url.path}", code="route_not_found")
    if error.status_code == 405:
        allowed = " and ".join(_allowed_methods(request))
        return MethodNotAllowedError(f"{request.url.path} accepts {allowed}, not {request.method}")
    if error.status_code == 400:  # the framework's answer to a body that is not UTF-8 or nested too deeply
        return InvalidRequestError("the body is not valid JSON", code="invalid_json")
    return ServiceError(str(error.detail))


def _allowed_methods(request: Request) -> list[str]:
    """Methods of all routes with the request's path; the framework names those of the first one
    only.
    """
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)
