"""Turns pydantic's errors about a request into one error for the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.errors import InvalidRequestError
from server.validation_messages import describe_problem, json_type

_CODES = {"missing": "missing_field", "unknown_field": "unknown_field"}
_MAX_NAMED = 5
"""Further wrong fields that one message names."""


def to_invalid_request(errors: Sequence[Any], body: Any = None) -> InvalidRequestError:
    """One error for all wrong fields: a message about the first, and the names of the others.

    Args:
        errors: `errors()` of a `RequestValidationError`.
        body: the request's parsed body.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return InvalidRequestError(
            f"the body is not valid JSON: {first['ctx']['error']} at character {first['loc'][1]}",
            code="invalid_json",
        )
    param = _path(first, body)
    if not param:
        found = "is empty" if first["type"] == "missing" else f"is {json_type(first['input'])}"
        return InvalidRequestError(f"the body {found}: send a JSON object", code="invalid_json")
    others = sorted({_path(error, body) for error in errors[1:]} - {param})
    more = f" (also wrong: {', '.join(others[:_MAX_NAMED])})" if others else ""
    message = describe_problem(param, first) + more
    return InvalidRequestError(message, param=param, code=_CODES.get(first["type"], "invalid_value"))


def _path(error: Any, body: Any) -> str:
    """The field's path in the request as the client sent it, such as `messages.0.role`."""
    source, *keys = error["loc"]
    path: list[str] = []
    value = body
    for key in keys:
        # A lone string that stands for a list (`stop`) has no index.
        if source == "body" and isinstance(value, str):
            break
        path.append(str(key))
        value = _item(value, key)
    if param := error.get("ctx", {}).get("param"):
        path.append(str(param))
    return ".".join(path)


def _item(value: Any, key: Any) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return None
