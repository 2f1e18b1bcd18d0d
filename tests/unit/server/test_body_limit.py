"""Bodies that are too large, too slow or not yet sent are refused in our shape."""

import asyncio

from server.observability.metrics import Metrics
from server.security import body_limit
from server.security.body_limit import BodyLimit


async def answer(receive, *headers):
    """Status and body of what a request gets; the app behind the limit must not be reached."""
    sent = []

    async def app(scope, receive, send):
        raise AssertionError("reached")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": list(headers)}
    await BodyLimit(app, 10, Metrics())(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def test_who_waits_to_be_asked_is_refused_without_being_asked():
    async def receive():
        raise AssertionError("uvicorn would now tell the client to send it all")

    status, body = await answer(receive, (b"content-length", b"11"), (b"expect", b"100-continue"))
    assert status == 413 and b"more than 10 bytes" in body


async def test_who_sends_already_is_heard_out():
    left = [{"type": "http.request", "body": b"x" * 6, "more_body": i < 2} for i in range(3)]

    async def receive():
        return left.pop(0)

    status, _ = await answer(receive)
    assert status == 413 and not left


async def test_a_body_that_never_ends_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(body_limit, "_READ_S", 0.01)
    monkeypatch.setattr(body_limit, "_LINGER_S", 0.01)

    async def receive():
        await asyncio.Event().wait()

    status, body = await answer(receive)
    assert status == 503 and b'"timeout"' in body
