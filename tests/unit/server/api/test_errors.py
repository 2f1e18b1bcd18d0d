import json

import pytest

SHAPE = {"message", "type", "param", "code"}


async def assert_refused(running, status, code, param=None, **request):
    response = await running.http.post("/v1/generate", **request)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), response.text
    assert set(response.json()) == {"error"}
    assert set(error) == SHAPE
    return error["message"]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"tempurature": 1}, "tempurature", "unknown_field"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.01}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_value"),
        ({"max_tokens": 10**30}, "max_tokens", "context_length_exceeded"),
        ({"stop": list("abcde")}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop.0", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "invalid_value"),
        ({"prompt": "a\x00b"}, "prompt", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x"}]}, "prompt", "invalid_value"),
        ({"prompt": None, "messages": []}, "messages", "invalid_value"),
        ({"prompt": None, "messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"prompt": None, "messages": [{"role": "user"}]}, "messages.0.content", "missing_field"),
        ({"task_description": "x" * 8193}, "task_description", "invalid_value"),
        ({"task_description": 7}, "task_description", "invalid_value"),
        ({"prompt": "x" * 300}, "prompt", "context_length_exceeded"),
        ({"max_tokens": 199}, "max_tokens", "context_length_exceeded"),
    ],
)
async def test_wrong_field_is_named(running, change, param, code):
    body = {"prompt": "hot", **change}
    await assert_refused(
        running, 400, code, param, json={k: v for k, v in body.items() if v is not None or k != "prompt"}
    )


async def test_longest_description_is_accepted(running):
    answer = await running.http.post("/v1/generate", json={"prompt": "x", "task_description": "y" * 8000})
    assert answer.status_code == 200


async def test_prompt_beyond_the_context_is_refused_with_both_token_counts(running):
    message = await assert_refused(
        running, 400, "context_length_exceeded", "prompt", json={"prompt": "x" * 300, "raw": True}
    )
    assert "300" in message
    assert "200" in message


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"prompt": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"prompt":' * 50_000,
        b"1" * 10_000,
        b"null",
        b"[]",
        b'"text"',
        b"",
    ],
)
async def test_body_that_is_not_a_json_object_is_refused(running, content):
    await assert_refused(
        running, 400, "invalid_json", content=content, headers={"content-type": "application/json"}
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_non_finite_numbers_are_refused(running, number):
    content = f'{{"prompt": "x", "temperature": {number}}}'
    await assert_refused(
        running,
        400,
        "invalid_value",
        "temperature",
        content=content,
        headers={"content-type": "application/json"},
    )


@pytest.mark.parametrize("field", ["prompt", "task_description"])
async def test_unpaired_surrogate_is_refused(running, field):
    content = json.dumps({"prompt": "x", field: "\ud800"})
    await assert_refused(
        running, 400, "invalid_value", field, content=content, headers={"content-type": "application/json"}
    )


async def test_large_body_is_refused_by_its_content_length(running):
    await assert_refused(running, 413, "payload_too_large", content=b"x" * (1 << 20) + b"x")


async def test_large_chunked_body_is_refused(running):
    async def chunks():
        for _ in range(40):
            yield b"x" * (1 << 15)

    response = await running.http.post("/v1/generate", content=chunks())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"
    metrics = await running.metrics()
    assert metrics['t2l_rejections_total{reason="payload_too_large"}'] == 1


async def test_unexpected_exception_is_a_500_that_reveals_nothing(running):
    running.engine.crash = KeyError("secret")
    message = await assert_refused(running, 500, "internal_error", json={"prompt": "x", "max_tokens": 1})
    assert "secret" not in message
    metrics = await running.metrics()
    assert metrics['t2l_requests_total{method="POST",route="/v1/generate",status="500"}'] == 1


async def test_openapi_document_lists_the_statuses_that_the_route_sends(running):
    document = (await running.http.get("/openapi.json")).json()
    responses = document["paths"]["/v1/generate"]["post"]["responses"]
    assert set(responses) == {"200", "400", "408", "413", "415", "429", "500", "503"}
    assert responses["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorOut")
    assert "HTTPValidationError" not in document["components"]["schemas"]
