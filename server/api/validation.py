"""Turns what pydantic found in a request into one error for the client.

Pydantic writes for developers: a string that is too long "should have at most 8192 items". The client gets
the field's path, the limit in the unit of its JSON type, and what to send instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from server.errors import InvalidRequestError

_CODES = {"missing": "missing_field", "unknown_field": "unknown_field"}
_MAX_NAMED = 5
"""Further wrong fields that one message names."""


def json_type(value: Any) -> str:
    """A value's type in JSON's terms, with its article."""
    names: dict[type, str] = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def to_invalid_request(errors: Sequence[Any], body: Any = None) -> InvalidRequestError:
    """One error for all that is wrong: the first one in words, the others by name.

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
    message = _message(param, first) + more
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


def _message(param: str, error: Any) -> str:
    describe = _MESSAGES.get(error["type"])
    if describe is not None:
        return f"{param} {describe(error.get('ctx', {}), error['input'])}"
    if error["type"] == "unknown_field":
        return f"there is no field {param}: {error['msg']}"
    return f"{param} {error['msg'][0].lower()}{error['msg'][1:]}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _unit(value: Any) -> str:
    return "character" if isinstance(value, str) else "item"


def _too_long(context: Any, value: Any) -> str:
    found, limit = _count(len(value), _unit(value)), context["max_length"]
    return f"has {found}, {len(value) - limit} more than the maximum of {limit}"


def _too_short(context: Any, value: Any) -> str:
    return f"must have at least {_count(context['min_length'], _unit(value))}, not {len(value)}"


def _must_be(expected: str) -> Callable[[Any, Any], str]:
    return lambda context, value: f"must be {expected}, not {json_type(value)}"


def _bound(words: str, key: str) -> Callable[[Any, Any], str]:
    return lambda context, value: f"must be {words} {_plain(context[key])}, not {_plain(value)}"


def _plain(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


_MESSAGES: dict[str, Callable[[Any, Any], str]] = {
    "missing": lambda context, value: "is missing: the request needs it",
    "too_long": _too_long,
    "string_too_long": _too_long,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "finite_number": lambda context, value: "must be a finite number",
    "literal_error": lambda context, value: f"must be {context['expected']}",
    "string_pattern_mismatch": lambda context, value: f"must match the pattern {context['pattern']}",
    "string_type": _must_be("a string"),
    "int_type": _must_be("an integer"),
    "int_from_float": lambda context, value: f"must be an integer, not {_plain(value)}",
    "float_type": _must_be("a number"),
    "bool_type": _must_be("true or false"),
    "list_type": _must_be("a list"),
    "model_type": _must_be("an object"),
    "model_attributes_type": _must_be("an object"),
    "dict_type": _must_be("an object"),
    # Path and query parameters arrive as text.
    "int_parsing": lambda context, value: "must be an integer",
    "int_parsing_size": lambda context, value: "is an integer with too many digits",
}
"""What follows the field's path, by pydantic's error type. Arguments: the error's context and input."""
