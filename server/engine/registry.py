"""Which adapters are in the engine, who is using them, and who goes when another must come.

vLLM by itself evicts an adapter that is in use, or stops the engine over one
that it cannot find again. So every slot is handed out here: an adapter is
loaded before anybody uses it, by one loader whoever else wants it, and leaves
only when nobody does. The engine is two callables, so none of this needs vLLM.
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
    """One adapter on its way in, or in. Callers see its two names."""

    adapter_id: str
    int_id: int
    refs: int = 0
    has_slot: bool = False
    evict_on_release: bool = False
    """Forgotten while in use: leaves with its last user."""
    reserved: bool = False
    """Its slot goes to somebody who has waited longest, so nobody new may join."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    load_task: asyncio.Task[None] = field(init=False)


class AdapterRegistry(Generic[W]):
    """A fixed number of slots, shared by reference counting, LRU eviction and a fair queue.

    Fairness: adapters get slots in the order in which they were first asked for.
    While one waits with every slot in flight, the least recently leased adapter
    takes no new leases, so that a few popular adapters cannot keep it out forever.

    Args:
        slots: how many adapters fit.
        load: `(adapter_id, int_id, weights, evict)` puts one in, after taking out the
            integer id `evict` if that is not None. If it fails, neither is in.
        unload: `(int_id)` takes one out.
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
        self._resident: OrderedDict[str, Entry] = OrderedDict()  # loaded; least recently leased first
        self._used = 0  # slots that are not free: loading, loaded or being emptied
        self._queue: deque[asyncio.Future[int | None]] = deque()
        self._last_id = 0
        self._failure: Callable[[], Exception] | None = None
        self._background_tasks: set[asyncio.Task[None]] = set()

    @property
    def resident(self) -> int:
        """Adapters loaded."""
        return len(self._resident)

    @property
    def in_flight(self) -> int:
        """Adapters loaded and in use."""
        return sum(1 for entry in self._resident.values() if entry.refs)

    @property
    def waiting(self) -> int:
        """Adapters that wait for a slot."""
        return sum(1 for waiter in self._queue if not waiter.done())

    @asynccontextmanager
    async def lease(self, adapter_id: str, weights: W) -> AsyncIterator[Entry]:
        """Have an adapter loaded for as long as the context lasts.

        Raises:
            Exception: what `load` raised, to everybody who waited for it; or what `fail` was given.
        """
        entry = await self._acquire(adapter_id, weights)
        try:
            yield entry
        finally:
            self._release(entry)

    @contextmanager
    def retain(self, entry: Entry) -> Iterator[None]:
        """Keep a leased adapter in even if its lease ends first.

        Raises:
            RuntimeError: the lease has ended already.
        """
        if not entry.refs:
            raise RuntimeError(f"the lease on adapter {entry.adapter_id} has ended")
        entry.refs += 1
        try:
            yield
        finally:
            self._release(entry)

    async def forget(self, adapter_id: str) -> None:
        """Take an adapter out, now or when its last user leaves. Unknown ids are ignored."""
        entry = self._entries.get(adapter_id)
        if entry is None:
            return
        if entry.refs or adapter_id not in self._resident:
            entry.evict_on_release = True
        else:
            self._remove(entry)
            await self._free_slot(entry.int_id)

    def fail(self, error: Callable[[], Exception]) -> None:
        """The engine is gone: everybody who waits, and everybody who comes, gets what `error` makes."""
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
            # Shielded: whoever gives up, the others still wait for the same load.
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
        if not entry.refs and not entry.has_slot:  # nobody wants it any more, so it need not wait for one
            entry.load_task.cancel()
            self._remove(entry)
        else:
            self._evict_or_grant(entry)

    def _evict_or_grant(self, entry: Entry) -> None:
        """See what an adapter's new state sets free."""
        if entry.evict_on_release and not entry.refs and self._resident.get(entry.adapter_id) is entry:
            self._remove(entry)
            self._run_in_background(self._free_slot(entry.int_id))
        else:
            self._grant_slots()

    async def _acquire_slot(self) -> int | None:
        """Wait for a slot; returns the integer id of the adapter that must leave it."""
        self._check()
        waiter: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        self._grant_slots()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                # Handed over in the same moment. The evicted adapter is out of the books, so take it out.
                self._run_in_background(self._free_slot(waiter.result()))
            self._grant_slots()
            raise

    async def _free_slot(self, int_id: int | None) -> None:
        """Give a slot back, once the adapter in it, already out of the books, is out of the engine too."""
        try:
            if int_id is not None:
                await self._unload(int_id)
        finally:
            self._used -= 1
            self._grant_slots()

    def _grant_slots(self) -> None:
        """Give slots to the queue, first come first served; called whenever one may have come free."""
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
        """Close the least recently leased adapter to new leases while somebody waits, and only then."""
        candidate = next(iter(self._resident.values()), None) if self._queue else None
        for entry in self._resident.values():
            if entry.reserved and entry is not candidate:
                entry.reserved = False
                entry.removed.set()  # whoever waited for it to go may have it after all
                entry.removed = asyncio.Event()
        if candidate:
            candidate.reserved = True

    def _remove(self, entry: Entry) -> None:
        """Take an entry out of the books."""
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
            task.exception()  # the engine is dead, and everybody has been told
