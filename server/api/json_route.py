"""Routes that read their body as strict JSON: with a JSON content type and without repeated
keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from server.errors import InvalidRequestError, UnsupportedMediaTypeError

_HINT = "send the body as JSON with the header 'Content-Type: application/json'"


class JsonRequest(Request):
    """A request whose JSON objects must not repeat a key."""

    async def json(self) -> Any:
        """The parsed body.

        Raises:
            InvalidRequestError: an object has a key twice. The framework passes it on as the cause
                of its own error.
            json.JSONDecodeError: the body is not JSON.
        """
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), object_pairs_hook=_object)
        return self._json


class JsonRoute(APIRoute):
    """A route that checks the content type before it parses a body.

    The check is strict on purpose: a web page of any origin may send a body of another type, or of
    none, without the browser asking this server first.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, behind the check."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_json(request: Request) -> Response:
            request = JsonRequest(request.scope, request.receive)
            if takes_body and await request.body():
                _check_content_type(request.headers.get("content-type"))
            return await handle(request)

        return handle_json


def _check_content_type(value: str | None) -> None:
    if not value:
        raise UnsupportedMediaTypeError(f"the request has no content type: {_HINT}")
    header = Message()
    header["content-type"] = value
    subtype = header.get_content_subtype()
    if header.get_content_maintype() != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise UnsupportedMediaTypeError(f"the content type is {value[:100]}: {_HINT}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise InvalidRequestError(f"{key} appears twice: send it once", param=key, code="duplicate_field")
        values[key] = value
    return values
