"""Registry of the adapters in the engine: reference counts, LRU eviction and a queue for slots.

vLLM evicts adapters that are in use, and stops the engine if it cannot find one again. The
registry therefore assigns all slots. Each adapter is loaded once, before its first use, and evicted
only when no lease holds it. The engine is passed in as two callables, so the registry does not
depend on vLLM.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

W = TypeVar("W")

MAX_ID = 2**31 - 1


@dataclass(eq=False, slots=True)
class Entry:
    """An adapter that is resident, being loaded, or waiting for a slot.

    Callers read only its two ids.
    """

    adapter_id: str
    int_id: int
    refs: int = 0
    has_slot: bool = False
    evict_on_release: bool = False
    """Evict the adapter when its last lease ends."""
    reserved: bool = False
    """The slot is reserved for the adapter that has waited longest: no new leases."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    load_task: asyncio.Task[None] = field(init=False)


class AdapterRegistry(Generic[W]):
    """A fixed number of slots with reference counting, LRU eviction and a fair queue.

    Adapters get slots in the order of their first request. While an adapter waits and leased
    adapters occupy all slots, the least recently leased one gets no new leases. Otherwise a few
    popular adapters could block the waiting one forever.

    Args:
        slots: number of slots.
        load: `(adapter_id, int_id, weights, evict)` loads an adapter, after it has evicted the
            integer id `evict` if that is not None. If it fails, neither adapter is in the engine.
        unload: `(int_id)` evicts an adapter.
    """

    def __init__(
        self,
        slots: int,
        load: Callable[[str, int, W, int | None], Awaitable[None]],
        unload: Callable[[int], Awaitable[None]],
    ) -> None:
        self.slots = slots
        self._load = load
        self._unload = unload
        self._entries: dict[str, Entry] = {}
        self._resident: OrderedDict[str, Entry] = OrderedDict()  # loaded adapters, least recently leased first
        self._used = 0  # slots whose adapter is loading, resident or being evicted
        self._queue: deque[asyncio.Future[int | None]] = deque()
        self._last_id = 0
        self._failure: Callable[[], Exception] | None = None
        self._background_tasks: set[asyncio.Task[None]] = set()

    @property
    def resident(self) -> int:
        """Number of loaded adapters."""
        return len(self._resident)

    @property
    def in_flight(self) -> int:
        """Number of leased adapters."""
        return sum(1 for entry in self._resident.values() if entry.refs)

    @property
    def waiting(self) -> int:
        """Number of adapters that wait for a slot."""
        return sum(1 for waiter in self._queue if not waiter.done())

    @asynccontextmanager
    async def lease(self, adapter_id: str, weights: W) -> AsyncIterator[Entry]:
        """Keep an adapter loaded until the context ends.

        Raises:
            Exception: the exception of `load`, for all callers that waited for it; or the one that
                `fail` received.
        """
        entry = await self._acquire(adapter_id, weights)
        try:
            yield entry
        finally:
            self._release(entry)

    @contextmanager
    def retain(self, entry: Entry) -> Iterator[None]:
        """Hold another reference to a leased adapter, which may outlast the lease.

        Raises:
            RuntimeError: the lease has already ended.
        """
        if not entry.refs:
            raise RuntimeError(f"the lease on adapter {entry.adapter_id} has ended")
        entry.refs += 1
        try:
            yield
        finally:
            self._release(entry)

    async def evict(self, adapter_id: str) -> None:
        """Evict an adapter, now or when its last lease ends. Unknown ids are ignored."""
        entry = self._entries.get(adapter_id)
        if entry is None:
            return
        if entry.refs or adapter_id not in self._resident:
            entry.evict_on_release = True
        else:
            self._remove(entry)
            await self._free_slot(entry.int_id)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Record that the engine died.

        All present and later callers get the exception that `error` makes.
        """
        self._failure = self._failure or error
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_exception(error())
        self._queue.clear()
        for entry in self._entries.values():
            entry.removed.set()

    async def _acquire(self, adapter_id: str, weights: W) -> Entry:
        while True:
            self._check()
            entry = self._entries.get(adapter_id)
            if entry is None:
                entry = self._entries[adapter_id] = Entry(adapter_id, self._new_id())
                entry.load_task = asyncio.create_task(self._load_entry(entry, weights))
            if not entry.reserved:
                break
            await entry.removed.wait()
        entry.refs += 1
        try:
            # Shielded: if this caller is cancelled, the others still wait for the same task.
            await asyncio.shield(entry.load_task)
        except BaseException:
            self._release(entry)
            raise
        self._resident.move_to_end(adapter_id)
        return entry

    async def _load_entry(self, entry: Entry, weights: W) -> None:
        try:
            evict = await self._acquire_slot()
            entry.has_slot = True
            await self._load(entry.adapter_id, entry.int_id, weights, evict)
        except BaseException:
            self._remove(entry)
            if entry.has_slot:
                self._used -= 1
            self._grant_slots()
            raise
        self._resident[entry.adapter_id] = entry
        self._evict_or_grant(entry)

    def _release(self, entry: Entry) -> None:
        entry.refs -= 1
        if not entry.refs and not entry.has_slot:  # no caller is left, so it stops waiting for a slot
            entry.load_task.cancel()
            self._remove(entry)
        else:
            self._evict_or_grant(entry)

    def _evict_or_grant(self, entry: Entry) -> None:
        """Evict an adapter that is due for it; otherwise give free slots to the queue."""
        if entry.evict_on_release and not entry.refs and self._resident.get(entry.adapter_id) is entry:
            self._remove(entry)
            self._run_in_background(self._free_slot(entry.int_id))
        else:
            self._grant_slots()

    async def _acquire_slot(self) -> int | None:
        """Wait for a slot. Returns the integer id of the adapter to evict from it, or None."""
        self._check()
        waiter: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        self._grant_slots()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                # The slot was granted at the same moment. The evicted adapter is no longer
                # registered, so it must be unloaded here.
                self._run_in_background(self._free_slot(waiter.result()))
            self._grant_slots()
            raise

    async def _free_slot(self, int_id: int | None) -> None:
        """Unload the adapter of a slot, which is no longer registered, and free the slot."""
        try:
            if int_id is not None:
                await self._unload(int_id)
        finally:
            self._used -= 1
            self._grant_slots()

    def _grant_slots(self) -> None:
        """Grant slots to waiters, first come first served. Called whenever a slot may be free."""
        self._queue = deque(waiter for waiter in self._queue if not waiter.done())
        while self._queue:
            if self._used < self.slots:
                self._used += 1
                self._queue.popleft().set_result(None)
                continue
            victim = next((entry for entry in self._resident.values() if not entry.refs), None)
            if victim is None:
                break
            self._remove(victim)
            self._queue.popleft().set_result(victim.int_id)
        self._reserve_least_recent()

    def _reserve_least_recent(self) -> None:
        """While there are waiters, reserve the slot of the least recently leased adapter for the
        first one.
        """
        candidate = next(iter(self._resident.values()), None) if self._queue else None
        for entry in self._resident.values():
            if entry.reserved and entry is not candidate:
                entry.reserved = False
                entry.removed.set()  # callers that waited for its removal can lease it again
                entry.removed = asyncio.Event()
        if candidate:
            candidate.reserved = True

    def _remove(self, entry: Entry) -> None:
        """Remove an entry from the registry."""
        if self._entries.get(entry.adapter_id) is entry:
            del self._entries[entry.adapter_id]
        if self._resident.get(entry.adapter_id) is entry:
            del self._resident[entry.adapter_id]
        entry.removed.set()

    def _check(self) -> None:
        if self._failure:
            raise self._failure()

    def _new_id(self) -> int:
        live = {entry.int_id for entry in self._entries.values()}
        while True:
            self._last_id = self._last_id % MAX_ID + 1
            if self._last_id not in live:
                return self._last_id

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._on_background_done)

    def _on_background_done(self, task: asyncio.Task[None]) -> None:
        self._background_tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, not raised: it fails only if the engine died, which `fail` reports
