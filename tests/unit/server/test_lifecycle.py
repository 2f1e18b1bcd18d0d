import asyncio

import pytest

from server.errors import OverloadedError, RequestTimeoutError, UnavailableError
from server.lifecycle import Lifecycle


def make(**limits):
    lifecycle = Lifecycle(**{"max_requests": 2, "request_timeout_s": 5} | limits)
    lifecycle.mark_ready()
    return lifecycle


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda life: None, "starting"),
        (lambda life: life.drain(1), "draining"),
        (lambda life: life.mark_failed("no model"), "failed"),
    ],
)
def test_requests_are_admitted_only_when_ready(act, code):
    lifecycle = Lifecycle(max_requests=1, request_timeout_s=1)
    act(lifecycle)
    with pytest.raises(UnavailableError) as caught, lifecycle.admit():
        pass
    assert caught.value.code == code


def test_request_beyond_the_maximum_is_refused():
    lifecycle = make(max_requests=1)
    with lifecycle.admit():
        with pytest.raises(OverloadedError) as caught, lifecycle.admit():
            pass
        assert caught.value.code == "too_many_requests"
    with lifecycle.admit():
        pass


async def test_wait_ends_at_the_request_deadline():
    with make(request_timeout_s=0.01).admit() as deadline, pytest.raises(RequestTimeoutError):
        await deadline.wait(asyncio.Event().wait())


async def test_stream_ends_at_the_request_deadline_and_is_closed():
    closed = False

    async def stream():
        nonlocal closed
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed = True

    got = []
    with make(request_timeout_s=0.02).admit() as deadline, pytest.raises(RequestTimeoutError):
        async for item in deadline.iterate(stream()):
            got.append(item)
    assert got == [1]
    assert closed


async def test_timeout_error_of_the_awaited_work_is_passed_on():
    async def fails():
        raise TimeoutError("theirs")

    with make().admit() as deadline, pytest.raises(TimeoutError, match="theirs"):
        await deadline.wait(fails())


async def test_wait_that_began_before_the_drain_ends_at_its_deadline():
    lifecycle = make(request_timeout_s=300)
    with lifecycle.admit() as deadline:
        waiting = asyncio.create_task(deadline.wait(asyncio.Event().wait()))
        await asyncio.sleep(0)
        lifecycle.drain(0.05)
        lifecycle.apply_drain_deadline()
        with pytest.raises(UnavailableError) as caught:
            await asyncio.wait_for(waiting, 5)
    assert caught.value.code == "draining"
    lifecycle.apply_drain_deadline()  # nothing waits any more


async def test_drain_deadline_ends_waits_with_unavailable_error():
    lifecycle = make()
    with lifecycle.admit() as deadline:
        lifecycle.drain(0)
        with pytest.raises(UnavailableError) as caught:
            await deadline.wait(asyncio.Event().wait())
    assert caught.value.code == "draining"


def test_drain_ends_with_the_last_request_or_at_its_deadline():
    now = 0.0
    lifecycle = Lifecycle(max_requests=2, request_timeout_s=5, clock=lambda: now)
    lifecycle.mark_ready()
    with lifecycle.admit():
        lifecycle.drain(10)
        assert not lifecycle.finished
        now = 10
        assert lifecycle.finished
        now = 9
    assert lifecycle.finished


def test_loading_that_ends_during_a_drain_does_not_make_the_server_ready():
    lifecycle = Lifecycle(max_requests=1, request_timeout_s=1)
    lifecycle.drain(1)
    lifecycle.mark_ready()
    assert lifecycle.phase == "draining"
