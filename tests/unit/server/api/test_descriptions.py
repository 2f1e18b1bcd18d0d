"""Task descriptions that the encoder reads in part, or not at all, on both routes that take one."""

import pytest

ROUTES = ["/v1/generate", "/v1/adapters"]


async def send(running, route, description):
    body = {"task_description": description}
    if route == "/v1/generate":
        body |= {"prompt": "p", "max_tokens": 1}
    return await running.http.post(route, json=body)


def adapter_of(response):
    return response.json().get("adapter", response.json())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("description", "code", "named"),
    [
        (" ", "empty_description", "no visible character"),
        ("\n\t\u3000", "empty_description", "no visible character"),
        ("\u200b", "empty_description", "no visible character"),
        ("\ufeff\u00ad \u2060", "empty_description", "no visible character"),
        ("😢", "description_not_readable", "100%"),
        ("Say 😢🐱😢🐱", "description_not_readable", "57%"),
        ("บอกคำตรงข้าม", "description_not_readable", "100%"),
        ("\ue000", "description_not_readable", "100%"),
        ("y" * 8001, "description_too_long", "8001 tokens"),
        ("a " * 4001, "description_too_long", "8000"),
    ],
)
async def test_unreadable_description_is_refused(running, route, description, code, named):
    response = await send(running, route, description)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, "task_description")
    assert named in error["message"]
    assert running.generator.generated == []
    metrics = await running.metrics()
    assert metrics[f't2l_rejections_total{{reason="{code}"}}'] == 1


async def test_empty_string_means_the_base_model_but_creates_no_adapter(running):
    for body in ({}, {"task_description": None}, {"task_description": ""}):
        answer = await running.http.post("/v1/generate", json={"prompt": "p", "max_tokens": 1, **body})
        assert (answer.status_code, answer.json()["adapter"]) == (200, None)
    refused = await send(running, "/v1/adapters", "")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "task_description")


@pytest.mark.parametrize("route", ROUTES)
async def test_partly_unread_description_is_answered_with_share_and_warning(running, route):
    response = await send(running, route, "Reply with a sad face: 😢")
    adapter = adapter_of(response)
    assert response.is_success
    assert adapter["unread"] == pytest.approx(1 / 19, abs=1e-4)
    assert [w["code"] for w in adapter["warnings"]] == ["description_partly_unread"]
    assert "5%" in adapter["warnings"][0]["message"]


async def test_stream_ends_with_share_and_warning(running):
    body = {"task_description": "Reply with a cat: 🐱", "prompt": "p", "max_tokens": 1, "stream": True}
    text = (await running.http.post("/v1/generate", json=body)).text
    assert '"unread":0.0667' in text
    assert "description_partly_unread" in text


@pytest.mark.parametrize("route", ROUTES)
async def test_readable_description_has_no_warning(running, route):
    adapter = adapter_of(await send(running, route, "Say the opposite."))
    assert (adapter["unread"], adapter["warnings"]) == (0, [])


@pytest.mark.parametrize("route", ROUTES)
async def test_descriptions_that_the_encoder_cannot_tell_apart_share_one_adapter(running, route):
    variants = [
        "Say the resume.",
        "  say  THE\nresumé. ",
        "Say the re\u00adsume.",
        "Say\u200b the\ufeff resume.",
        "\u202eSay the résumé.\x07",
    ]
    ids = {adapter_of(await send(running, route, text))["id"] for text in variants}
    assert len(ids) == 1
    assert running.generator.generated == ["Say the resume."]


async def test_descriptions_that_differ_only_at_the_end_have_their_own_adapters(running):
    start = "Preamble. " * 600
    ids = {adapter_of(await send(running, "/v1/adapters", start + end))["id"] for end in ("French", "Greek")}
    assert len(ids) == 2
