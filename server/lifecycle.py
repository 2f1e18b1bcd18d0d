"""The server's phases, its limit on concurrent requests, and draining.

    starting -> ready -> draining
        \\-> failed

A request is admitted only while the server is ready and below its limit. On SIGTERM the server
drains: it admits no further request, and is finished with the last request in flight or at the
drain's deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Literal, TypeVar, cast

from server.errors import OverloadedError, RequestTimeoutError, UnavailableError

T = TypeVar("T")
Phase = Literal["starting", "ready", "draining", "failed"]


class Lifecycle:
    """The server's phase and its admitted requests. A signal handler may call `drain`.

    Attributes:
        phase: the current phase.
        failure: why the server failed; None unless it has.
        in_flight: number of admitted requests that are not done.
    """

    def __init__(
        self, *, max_requests: int, request_timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_requests = max_requests
        self._request_timeout_s = request_timeout_s
        self._clock = clock
        self._drained_at = float("inf")
        self._waits: dict[asyncio.Timeout, Deadline] = {}
        self.phase: Phase = "starting"
        self.failure: str | None = None
        self.in_flight = 0

    def mark_ready(self) -> None:
        """Admit requests from now on: everything is loaded."""
        if self.phase == "starting":
            self.phase = "ready"

    def mark_failed(self, reason: str) -> None:
        """Admit no request any more: the server cannot serve."""
        self.phase, self.failure = "failed", reason

    def drain(self, timeout_s: float) -> None:
        """Admit no request from now on. Requests in flight get `timeout_s` seconds."""
        self.phase = "draining"
        self._drained_at = self._clock() + timeout_s

    def apply_drain_deadline(self) -> None:
        """Shorten waits that began before the drain to the drain's deadline.

        Call it in the event loop.
        """
        now = asyncio.get_running_loop().time()
        for limit, deadline in self._waits.items():
            if not limit.expired():
                limit.reschedule(now + max(0.0, deadline.left_s))

    @contextmanager
    def waiting(self, limit: asyncio.Timeout, deadline: Deadline) -> Iterator[None]:
        """Register a wait for the duration of the context, so that a drain can shorten it."""
        self._waits[limit] = deadline
        try:
            yield
        finally:
            del self._waits[limit]

    @property
    def finished(self) -> bool:
        """Whether the process should end."""
        if self.phase == "failed":
            return True
        return self.phase == "draining" and (self.in_flight == 0 or self.drain_left_s <= 0)

    @property
    def drain_left_s(self) -> float:
        """Seconds until the drain's deadline. Infinite if the server is not draining."""
        return self._drained_at - self._clock()

    def check_accepting(self) -> None:
        """Check that the server is ready.

        Raises:
            UnavailableError: the server is starting, draining or has failed.
        """
        if self.phase == "starting":
            raise UnavailableError("the server is still loading its models", code="starting")
        if self.phase == "draining":
            raise UnavailableError(
                "the server is stopping: send the request to another replica", code="draining"
            )
        if self.phase == "failed":
            raise UnavailableError(f"the server has failed and will exit: {self.failure}", code="failed")

    @contextmanager
    def admit(self) -> Iterator[Deadline]:
        """Count one request for the duration of the context.

        Raises:
            UnavailableError: the server is not ready.
            OverloadedError: the maximum of concurrent requests is reached.
        """
        self.check_accepting()
        if self.in_flight >= self._max_requests:
            raise OverloadedError(
                f"{self._max_requests} requests are in progress, the maximum: try again shortly",
                code="too_many_requests",
            )
        self.in_flight += 1
        try:
            yield Deadline(self, self._clock() + self._request_timeout_s, self._clock)
        finally:
            self.in_flight -= 1


class Deadline:
    """The deadline of one request: its own time limit or the drain's, whichever comes first.

    Each wait has its own timeout. One `asyncio.timeout` around a whole stream would span the
    generator's `yield` and could fire in the code that reads it.
    """

    def __init__(self, lifecycle: Lifecycle, at: float, clock: Callable[[], float]) -> None:
        self._lifecycle = lifecycle
        self._at = at
        self._clock = clock

    @property
    def left_s(self) -> float:
        """Seconds left. Negative after the deadline."""
        return min(self._at - self._clock(), self._lifecycle.drain_left_s)

    async def wait(self, work: Awaitable[T]) -> T:
        """Await something, and cancel it at the deadline.

        Raises:
            RequestTimeoutError: the request's time limit has passed.
            UnavailableError: the drain's time limit has passed.
        """
        try:
            async with asyncio.timeout(max(0.0, self.left_s)) as limit:
                with self._lifecycle.waiting(limit, self):
                    return await work
        except TimeoutError:
            if not limit.expired():
                raise  # a TimeoutError of the awaited work
        if self._lifecycle.drain_left_s <= 0:
            raise UnavailableError("the server stopped before the request was done", code="draining")
        raise RequestTimeoutError("the request took longer than this server allows")

    async def iterate(self, items: AsyncIterator[T]) -> AsyncGenerator[T]:
        """Items of a stream, each awaited as by `wait`. The stream is closed however it ends."""
        end = object()
        async with aclosing(cast("AsyncGenerator[T]", items)):
            while (item := await self.wait(anext(items, end))) is not end:
                yield cast("T", item)
