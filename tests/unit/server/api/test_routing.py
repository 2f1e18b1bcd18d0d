"""Paths, methods and bodies, before any route runs."""

import json

import pytest
from fastapi.routing import APIRoute

JSON = {"content-type": "application/json"}


def routes(running):
    """Each path of the API with its methods."""
    methods = {}
    for route in running.app.routes:
        if isinstance(route, APIRoute):
            methods.setdefault(route.path, set()).update(route.methods)
    return methods


async def test_every_route_answers_with_a_trailing_slash_as_without(running):
    created = await running.http.post("/v1/adapters", json={"task_description": "x"})
    bodies = {"/v1/generate": {"prompt": "hot", "max_tokens": 2}, "/v1/adapters": {"task_description": "x"}}
    checked = 0
    for path, methods in routes(running).items():
        for method in methods - {"DELETE"}:
            request = {"json": bodies[path]} if method == "POST" else {}
            url = path.replace("{adapter_id}", created.json()["id"])
            without = await running.http.request(method, url, **request)
            with_slash = await running.http.request(method, f"{url}/", **request)
            assert (with_slash.status_code, with_slash.headers["content-type"]) == (
                without.status_code,
                without.headers["content-type"],
            )
            assert without.status_code == 200
            checked += 1
    assert checked >= 7
    assert (await running.http.delete(f"/v1/adapters/{created.json()['id']}/")).status_code == 204


async def test_trailing_slash_counts_as_the_same_route_in_metrics(running):
    await running.http.post("/v1/generate/", json={"prompt": "hot", "max_tokens": 1})
    metrics = await running.metrics()
    assert metrics['t2l_requests_total{method="POST",route="/v1/generate",status="200"}'] == 1


async def test_405_names_all_methods_of_the_path(running):
    for path, methods in routes(running).items():
        wrong = await running.http.request("PATCH", path.replace("{adapter_id}", "0" * 32))
        error = wrong.json()["error"]
        assert (wrong.status_code, error["code"]) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == ", ".join(sorted(methods))
        assert all(method in error["message"] for method in methods)


async def test_unknown_path_is_404_in_the_error_shape(running):
    for path in ("/v2/generate", "/v1", "/v1/generate/x"):
        nowhere = await running.http.get(path)
        error = nowhere.json()["error"]
        assert (nowhere.status_code, error["code"]) == (404, "route_not_found")
        assert error["message"] == f"there is no route {path}"


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/adapters"])
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        "x/json",
    ],
)
async def test_body_that_is_not_sent_as_json_is_415(running, path, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = await running.http.post(path, content=b'{"prompt": "x"}', headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (415, "unsupported_media_type")
    assert (content_type or "no content type") in error["message"]
    assert "'Content-Type: application/json'" in error["message"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"],
)
async def test_json_content_types_are_accepted(running, content_type):
    body = json.dumps({"prompt": "hot", "max_tokens": 1}).encode()
    response = await running.http.post("/v1/generate", content=body, headers={"content-type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize("headers", [{}, JSON])
async def test_empty_body_is_refused_as_such(running, headers):
    response = await running.http.post("/v1/generate", headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_json")
    assert error["message"] == "the body is empty: send a JSON object"


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (
            "/v1/generate",
            '{"prompt": "x", "task_description": "a", "task_description": ""}',
            "task_description",
        ),
        ("/v1/generate", '{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content"),
        ("/v1/adapters", '{"task_description": "a", "task_description": "a"}', "task_description"),
    ],
)
async def test_repeated_key_is_refused_by_name(running, path, body, key):
    response = await running.http.post(path, content=body, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "duplicate_field", key)
    assert error["message"] == f"{key} appears twice: send it once"


async def test_unknown_query_parameter_is_refused_with_the_nearest(running):
    response = await running.http.get("/v1/adapters", params={"limt": 3})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unknown_field", "limt")
    assert error["message"] == "there is no field limt: did you mean limit?"


async def test_query_parameter_that_is_not_a_number_is_refused(running):
    response = await running.http.get("/v1/adapters", params={"limit": "many"})
    assert response.json()["error"]["message"] == "limit must be an integer"
