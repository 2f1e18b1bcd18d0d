"""Write-behind: writes adapters to the slow tier in the background,
while their requests continue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from server.adapters.adapter import Adapter
from server.observability.metrics import Metrics

log = logging.getLogger("t2l.write_behind")


class WriteBehind:
    """One background task that writes adapters in order, from a queue bounded in bytes.

    A full queue drops the new adapter and counts it. There are no retries: a lost adapter costs a
    replica one pass of the hypernetwork later, whereas a retry would cost memory now.
    """

    def __init__(self, write: Callable[[Adapter], Awaitable[None]], metrics: Metrics, max_bytes: int) -> None:
        self._write = write
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._queue: OrderedDict[str, Adapter] = OrderedDict()
        self._writing: tuple[str, asyncio.Task[None]] | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._runner: asyncio.Task[None] | None = None
        self.nbytes = 0
        """Bytes of the weights in the queue."""

    def start(self) -> None:
        """Start the background task. Needs a running event loop."""
        self._runner = asyncio.create_task(self._run())

    def put(self, adapter: Adapter) -> None:
        """Enqueue an adapter. Never waits, never raises."""
        if adapter.id in self._queue:
            return
        if self.nbytes + adapter.nbytes > self._max_bytes:
            self._metrics.writes.labels("dropped").inc()
            return
        self._queue[adapter.id] = adapter
        self.nbytes += adapter.nbytes
        self._idle.clear()
        self._wake.set()

    async def cancel(self, adapter_id: str) -> None:
        """Drop an adapter from the queue, and wait for a write of it that has started."""
        if (adapter := self._queue.pop(adapter_id, None)) is not None:
            self.nbytes -= adapter.nbytes
        if self._writing is not None and self._writing[0] == adapter_id:
            await asyncio.wait([self._writing[1]])

    async def flush(self, timeout_s: float) -> bool:
        """Wait until the queue is empty, at most `timeout_s` seconds. Returns whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Stop the background task. Adapters in the queue are lost."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
            self._runner = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                _, adapter = self._queue.popitem(last=False)
                self.nbytes -= adapter.nbytes
                self._writing = adapter.id, asyncio.create_task(self._write_one(adapter))
                await self._writing[1]
                self._writing = None
            self._idle.set()

    async def _write_one(self, adapter: Adapter) -> None:
        try:
            await self._write(adapter)
        except Exception:  # the next adapter must still be written
            log.exception("writing an adapter to Redis failed", extra={"fields": {"adapter": adapter.id}})
            self._metrics.writes.labels("error").inc()
