"""Messages for invalid requests: the field's path, the limit in its unit,
and what to send instead.
"""

import pytest
from pydantic import TypeAdapter, ValidationError

from server.api.schemas import CreateAdapterRequest, GenerateRequest, Message
from server.api.validation import to_invalid_request

VALID = {
    GenerateRequest: {"prompt": "x"},
    CreateAdapterRequest: {"task_description": "x"},
    Message: {"role": "user", "content": "x"},
}
OF_TYPE = {"string": "x", "integer": 7, "number": 0.5, "boolean": True, "array": [], "object": {}}


def error_for(model, body):
    """The error that a client gets for this body."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(body)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    return to_invalid_request(errors, body)


def violations(schema):
    """Every constraint of a field's JSON schema: (a value that violates it,
    what the message must say).
    """
    for branch in schema.get("anyOf", ()):
        yield from ((value, said) for value, said in violations(branch) if said)
    if "maxLength" in schema:
        limit = schema["maxLength"]
        yield "x" * (limit + 3), f"has {limit + 3} characters, 3 more than the maximum of {limit}"
    if "minLength" in schema:
        yield "", "must have at least 1 character, not 0"
    if "maxItems" in schema:
        limit = schema["maxItems"]
        yield ["x"] * (limit + 1), f"has {limit + 1} items, 1 more than the maximum of {limit}"
    if "minItems" in schema:
        yield [], "must have at least 1 item, not 0"
    for key, words, offset in (
        ("minimum", "at least", -1),
        ("exclusiveMinimum", "greater than", 0),
        ("maximum", "at most", 1),
        ("exclusiveMaximum", "less than", 0),
    ):
        if key in schema:
            yield schema[key] + offset, f"must be {words} {schema[key]:g}".replace("9.22337e+18", str(2**63))
    if "enum" in schema:
        yield "other", "must be " + ", ".join(map(repr, schema["enum"][:-1]))


CONSTRAINTS = [
    pytest.param(model, name, value, said, id=f"{model.__name__}.{name}: {said[:40]}")
    for model in VALID
    for name, schema in model.model_json_schema()["properties"].items()
    for value, said in violations(schema)
]


@pytest.mark.parametrize(("model", "name", "value", "said"), CONSTRAINTS)
def test_every_constraint_is_reported_in_the_unit_of_its_type(model, name, value, said):
    error = error_for(model, VALID[model] | {name: value})
    assert error.param == name
    assert error.message.startswith(f"{name} {said}")


def test_every_kind_of_constraint_occurs():
    said = " ".join(parameters.values[3] for parameters in CONSTRAINTS)
    for words in ("characters", "items", "at least", "at most", "greater than", "less than", "'system'"):
        assert words in said


TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
}
FOUND = {
    "string": "a string",
    "integer": "a number",
    "number": "a number",
    "boolean": "a boolean",
    "array": "a list",
    "object": "an object",
}


@pytest.mark.parametrize(
    ("model", "name", "schema"),
    [
        (model, name, schema)
        for model in VALID
        for name, schema in model.model_json_schema()["properties"].items()
        if "enum" not in schema
    ],
)
def test_every_wrong_type_is_reported_with_the_right_one(model, name, schema):
    accepted = [branch["type"] for branch in schema.get("anyOf", [schema])]
    expected = " or ".join(TYPES[kind] for kind in accepted if kind != "null")
    for kind, value in OF_TYPE.items():
        if kind in accepted or (kind == "integer" and "number" in accepted):
            continue
        error = error_for(model, VALID[model] | {name: value})
        assert error.param == name
        assert error.message.startswith(f"{name} must be {expected}")
        assert error.message.removesuffix(" of strings").split(" (also")[0].endswith(f", not {FOUND[kind]}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "x", "task_desc": "y"}, "there is no field task_desc: did you mean task_description?"),
        ({"prompt": "x", "description": "y"}, "there is no field description: did you mean task_description?"),
        ({"prompt": "x", "maxTokens": 1}, "there is no field maxTokens: did you mean max_tokens?"),
        ({"prompt": "x", "message": []}, "there is no field message: did you mean messages?"),
        ({"prompt": "x", "temperatur": 1}, "there is no field temperatur: did you mean temperature?"),
        (
            {"messages": [{"rol": "user", "content": "x"}]},
            "there is no field messages.0.rol: did you mean role?",
        ),
    ],
)
def test_unknown_field_is_refused_with_the_nearest(body, message):
    error = error_for(GenerateRequest, body)
    assert (error.code, error.message) == ("unknown_field", message)
    assert error.param == message.split()[4].rstrip(":")


def test_unknown_field_without_a_near_one_is_refused_with_all_fields():
    error = error_for(CreateAdapterRequest, {"zzz": 1})
    assert error.message == "there is no field zzz: the fields are task_description"


def test_unknown_field_is_reported_before_the_missing_one_that_it_meant():
    assert error_for(CreateAdapterRequest, {"task_desc": "x"}).code == "unknown_field"


@pytest.mark.parametrize(
    ("model", "body", "param", "message"),
    [
        (CreateAdapterRequest, {}, "task_description", "task_description is missing: the request needs it"),
        (
            GenerateRequest,
            {"messages": [{"role": "user"}]},
            "messages.0.content",
            "messages.0.content is missing: the request needs it",
        ),
        (GenerateRequest, {"messages": ["x"]}, "messages.0", "messages.0 must be an object, not a string"),
        (
            GenerateRequest,
            {"prompt": "x", "temperature": float("nan")},
            "temperature",
            "temperature must be a finite number",
        ),
        (GenerateRequest, {"prompt": "x", "stop": ""}, "stop", "stop must have at least 1 character, not 0"),
        (
            GenerateRequest,
            {"prompt": "x", "stop": ["a", ""]},
            "stop.1",
            "stop.1 must have at least 1 character, not 0",
        ),
        (
            GenerateRequest,
            {"prompt": "\x00"},
            "prompt",
            "prompt contains a NUL character or an unpaired surrogate: remove it",
        ),
        (GenerateRequest, {}, "prompt", "prompt or messages: send one of the two, not neither"),
        (
            GenerateRequest,
            {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
            "prompt",
            "prompt or messages: send one of the two, not both",
        ),
        (
            GenerateRequest,
            {"messages": [{"role": "user", "content": "x"}], "raw": True},
            "raw",
            "raw applies to prompt only: messages always use the chat template",
        ),
        (
            GenerateRequest,
            {"prompt": 1, "top_p": 2, "seed": "x"},
            "prompt",
            "prompt must be a string, not a number (also wrong: seed, top_p)",
        ),
        (GenerateRequest, [], None, "the body is a list: send a JSON object"),
    ],
)
def test_message_says_what_is_wrong_and_what_to_send(model, body, param, message):
    error = error_for(model, body)
    assert (error.param, error.message) == (param, message)
