"""Bodies that are too large, too slow or not yet sent are refused in the error shape."""

import asyncio

from server.observability.metrics import Metrics
from server.security import body_limit
from server.security.body_limit import BodyLimit


async def never_reached(scope, receive, send):
    raise AssertionError("reached")


async def sent_to(receive, *headers, limit=None):
    """What a request gets from the limit; the app behind it must not be reached."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": list(headers)}
    await (limit or BodyLimit(never_reached, 10, Metrics()))(scope, receive, send)
    return sent


async def answer(receive, *headers):
    """Status and body of that."""
    start, body = await sent_to(receive, *headers)
    return start["status"], body["body"]


async def test_client_that_waits_for_100_continue_is_refused_without_it():
    async def receive():
        raise AssertionError("uvicorn would now tell the client to send it all")

    status, body = await answer(receive, (b"content-length", b"11"), (b"expect", b"100-continue"))
    assert status == 413 and b"more than 10 bytes" in body


async def test_refused_body_is_read_to_its_end():
    left = [{"type": "http.request", "body": b"x" * 6, "more_body": i < 2} for i in range(3)]

    async def receive():
        return left.pop(0)

    status, _ = await answer(receive)
    assert status == 413 and not left


async def test_body_that_does_not_arrive_is_408(monkeypatch):
    monkeypatch.setattr(body_limit, "_READ_TIMEOUT_S", 0.01)
    monkeypatch.setattr(body_limit, "_LINGER_S", 0.01)

    async def receive():
        await asyncio.Event().wait()

    status, body = await answer(receive)
    assert status == 408 and b'"body_too_slow"' in body


async def test_disconnect_while_sending_gets_no_response():
    async def receive():
        return {"type": "http.disconnect"}

    assert await sent_to(receive) == []


async def test_unfinished_bodies_of_all_clients_share_one_limit(monkeypatch):
    monkeypatch.setattr(body_limit, "_MAX_BUFFERED_BYTES", 10)
    monkeypatch.setattr(body_limit, "_LINGER_S", 0.01)
    limit = BodyLimit(never_reached, 10, Metrics())
    go_on = asyncio.Event()

    def client():
        pieces = iter((b"x" * 6,))

        async def receive():
            if piece := next(pieces, None):
                return {"type": "http.request", "body": piece, "more_body": True}
            await go_on.wait()
            return {"type": "http.disconnect"}

        return receive

    first = asyncio.create_task(sent_to(client(), limit=limit))
    await asyncio.sleep(0)
    second = await sent_to(client(), limit=limit)
    assert second[0]["status"] == 429
    go_on.set()
    assert await first == []
    assert limit._buffered == 0
