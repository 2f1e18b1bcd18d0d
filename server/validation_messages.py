"""Messages for values that pydantic refuses, in requests and in settings.

Pydantic writes for developers: a string that is too long "should have at most 8192 items". These
messages name the field, the limit in the unit of the value's type, and the value or type that was
found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def describe_problem(name: str, error: Any) -> str:
    """One error as a sentence.

    Args:
        name: the field's path in a request, or a setting's variable.
        error: an item of `ValidationError.errors()`.
    """
    describe = _MESSAGES.get(error["type"])
    if describe is not None:
        return f"{name} {describe(error.get('ctx', {}), error['input'])}"
    if error["type"] == "unknown_field":
        return f"there is no field {name}: {error['msg']}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if error["type"] == "value_error" else f"{name} {_lower_first(message)}"


def json_type(value: Any) -> str:
    """A value's type in JSON's terms, with its article."""
    names: dict[type, str] = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


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
    # Settings, path parameters and query parameters arrive as text.
    "int_parsing": lambda context, value: "must be an integer",
    "int_parsing_size": lambda context, value: "is an integer with too many digits",
    "float_parsing": lambda context, value: "must be a number",
    "url_parsing": lambda context, value: f"must be a URL: {context['error']}",
    "url_scheme": lambda context, value: f"must be a URL that begins with {context['expected_schemes']}",
}
"""The message after the field's path, by pydantic's error type.

Arguments: the error's context and input.
"""
