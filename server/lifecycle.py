"""Who may come in, and until when: the server's phases, its bound on requests, and draining.

    starting -> ready -> draining
        \\-> failed

A request is admitted only while the server is ready and not full. On SIGTERM the
server drains: it admits nobody, lets what runs finish, and is done when the last
request is, or when the drain's deadline passes.
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
    """The server's phase and its admitted requests. Safe to call `drain` from a signal handler.

    Attributes:
        phase: where the server stands.
        failure: why it cannot serve, once it cannot.
        in_flight: requests admitted and not done.
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
        """Everything is loaded."""
        if self.phase == "starting":
            self.phase = "ready"

    def mark_failed(self, reason: str) -> None:
        """The server will never be ready, or never again."""
        self.phase, self.failure = "failed", reason

    def drain(self, timeout_s: float) -> None:
        """Admit nobody from now on; what runs has so many seconds."""
        self.phase = "draining"
        self._drained_at = self._clock() + timeout_s

    def apply_drain_deadline(self) -> None:
        """Bring waits that began before the drain forward to its deadline. Called from the event loop."""
        now = asyncio.get_running_loop().time()
        for limit, deadline in self._waits.items():
            if not limit.expired():
                limit.reschedule(now + max(0.0, deadline.left_s))

    @contextmanager
    def waiting(self, limit: asyncio.Timeout, deadline: Deadline) -> Iterator[None]:
        """Know of a wait for as long as the context lasts."""
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
        """Seconds until the drain's deadline; infinite while not draining."""
        return self._drained_at - self._clock()

    def check_accepting(self) -> None:
        """Pass if requests are admitted at all.

        Raises:
            UnavailableError: starting, draining or failed.
        """
        if self.phase == "starting":
            raise UnavailableError("the server is still loading its models", code="starting")
        if self.phase == "draining":
            raise UnavailableError("the server is stopping; ask another replica", code="draining")
        if self.phase == "failed":
            raise UnavailableError(f"the server has failed and is ending: {self.failure}", code="failed")

    @contextmanager
    def admit(self) -> Iterator[Deadline]:
        """Count one request for as long as the context lasts.

        Raises:
            UnavailableError: not ready.
            OverloadedError: as many requests as allowed are being answered.
        """
        self.check_accepting()
        if self.in_flight >= self._max_requests:
            raise OverloadedError(
                f"{self._max_requests} requests are already being answered", code="too_many_requests"
            )
        self.in_flight += 1
        try:
            yield Deadline(self, self._clock() + self._request_timeout_s, self._clock)
        finally:
            self.in_flight -= 1


class Deadline:
    """When one request must be done: at its own time limit, or the drain's, whichever comes first.

    Each wait is bounded by itself, rather than the whole request by one
    `asyncio.timeout`: a stream's story is a generator, and a timeout around its
    `yield` would go off in whoever reads it.
    """

    def __init__(self, lifecycle: Lifecycle, at: float, clock: Callable[[], float]) -> None:
        self._lifecycle = lifecycle
        self._at = at
        self._clock = clock

    @property
    def left_s(self) -> float:
        """Seconds left; may be negative."""
        return min(self._at - self._clock(), self._lifecycle.drain_left_s)

    async def wait(self, work: Awaitable[T]) -> T:
        """Await something, cancelling it at the deadline.

        Raises:
            RequestTimeoutError: the request's time is up.
            UnavailableError: the drain's time is up.
        """
        try:
            async with asyncio.timeout(max(0.0, self.left_s)) as limit:
                with self._lifecycle.waiting(limit, self):
                    return await work
        except TimeoutError:
            if not limit.expired():
                raise  # somebody else's
        if self._lifecycle.drain_left_s <= 0:
            raise UnavailableError("the server stopped before the request was done", code="draining")
        raise RequestTimeoutError("the request took longer than this server allows")

    async def iterate(self, items: AsyncIterator[T]) -> AsyncGenerator[T]:
        """Every item of a stream, each awaited like `wait`; closes the stream, however it ends."""
        end = object()
        async with aclosing(cast("AsyncGenerator[T]", items)):
            while (item := await self.wait(anext(items, end))) is not end:
                yield cast("T", item)
