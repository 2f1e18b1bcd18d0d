"""Dynamic batching without a fixed delay.

While one batch is computed, the next one collects items. It starts as soon as the worker is free.
An idle server therefore computes a single item at once, and a busy server computes large batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from server.errors import GenerationFailedError, OverloadedError, ServiceError, UnavailableError
from server.observability.metrics import Metrics

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class _Job(Generic[T, R]):
    item: T
    done: asyncio.Future[tuple[R, float]]
    enqueued_at: float


class Batcher(Generic[T, R]):
    """A bounded queue in front of one worker thread. Use it as an async context manager.

    The synchronous worker has one dedicated thread: torch never blocks the event loop, and no two
    batches run at once.
    """

    def __init__(
        self,
        compute: Callable[[list[T]], Sequence[R]],
        *,
        max_batch: int,
        max_queue: int,
        metrics: Metrics,
        clock: Callable[[], float],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Configure a batcher.

        Args:
            compute: returns one result per item, in order. Runs in the worker thread.
            max_batch: maximum number of items per call of `compute`.
            max_queue: maximum number of waiting items. Further items are rejected.
            metrics: records batch sizes and waiting times.
            clock: monotonic seconds.
            prepare: runs once in the worker thread, before the first batch.
        """
        self._compute = compute
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._metrics = metrics
        self._clock = clock
        self._queue: deque[_Job[T, R]] = deque()
        self._computing: list[_Job[T, R]] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "t2l-hypernetwork", initializer=prepare)
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop. Items that still wait fail with `UnavailableError`."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
            self._runner = None
        for job in (*self._computing, *self._queue):
            _fail(job, UnavailableError("the server is stopping"))
        self._queue.clear()
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def depth(self) -> int:
        """Number of waiting items whose callers still wait."""
        return sum(not job.done.done() for job in tuple(self._queue))  # other threads read it, too

    async def submit(self, item: T) -> tuple[R, float]:
        """Wait for the item's result and for the seconds that it spent in the queue. Cancelling
        drops the item.

        Raises:
            OverloadedError: the queue is full.
            GenerationFailedError: the item's batch failed.
            UnavailableError: the batcher was stopped.
        """
        if self._runner is None:
            raise UnavailableError("the server is stopping")
        if len(self._queue) >= self._max_queue and self.depth >= self._max_queue:
            raise OverloadedError(
                f"{self._max_queue} new task descriptions already wait for their adapters. Retry later",
                code="queue_full",
            )
        job: _Job[T, R] = _Job(item, asyncio.get_running_loop().create_future(), self._clock())
        self._queue.append(job)
        self._wake.set()
        return await job.done  # a cancelled caller cancels the future, and the batch then skips the job

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._computing = self._next_batch()
                if self._computing:
                    await self._work(self._computing)
                self._computing = []  # an idle batcher keeps no results alive

    async def _work(self, batch: list[_Job[T, R]]) -> None:
        started = self._clock()
        self._metrics.batch_size.observe(len(batch))
        try:
            items = [job.item for job in batch]
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, items)
            if len(results) != len(batch):
                raise GenerationFailedError(
                    f"the hypernetwork returned {len(results)} results for {len(batch)} descriptions"
                )
        except Exception as error:
            _fail_all(batch, error)
            return
        for job, result in zip(batch, results, strict=True):
            waited = started - job.enqueued_at
            self._metrics.batch_wait.observe(waited)
            if not job.done.done():
                job.done.set_result((result, waited))

    def _next_batch(self) -> list[_Job[T, R]]:
        batch: list[_Job[T, R]] = []
        while self._queue and len(batch) < self._max_batch:
            job = self._queue.popleft()
            if not job.done.done():
                batch.append(job)
        return batch


def _fail_all(batch: list[_Job[T, R]], cause: Exception) -> None:
    for job in batch:
        # One exception object per caller: a shared one would collect the tracebacks of all callers.
        error = GenerationFailedError(
            "the hypernetwork failed on a batch of descriptions. The server's log has the cause"
        )
        error.__cause__ = cause
        _fail(job, error)


def _fail(job: _Job[T, R], error: ServiceError) -> None:
    if not job.done.done():
        job.done.set_exception(error)
