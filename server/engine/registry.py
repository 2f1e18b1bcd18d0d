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
    doomed: bool = False
    """Forgotten while in use: leaves with its last user."""
    promised: bool = False
    """Its slot goes to somebody who has waited longest, so nobody new may join."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    arrival: asyncio.Task[None] = field(init=False)


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
        self._chores: set[asyncio.Task[None]] = set()

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
        return sum(1 for place in self._queue if not place.done())

    @asynccontextmanager
    async def lease(self, adapter_id: str, weights: W) -> AsyncIterator[Entry]:
        """Have an adapter loaded for as long as the context lasts.

        Raises:
            Exception: what `load` raised, to everybody who waited for it; or what `fail` was given.
        """
        entry = await self._join(adapter_id, weights)
        try:
            yield entry
        finally:
            self._leave(entry)

    @contextmanager
    def hold(self, entry: Entry) -> Iterator[None]:
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
            self._leave(entry)

    async def forget(self, adapter_id: str) -> None:
        """Take an adapter out, now or when its last user leaves. Unknown ids are ignored."""
        entry = self._entries.get(adapter_id)
        if entry is None:
            return
        if entry.refs or adapter_id not in self._resident:
            entry.doomed = True
        else:
            self._drop(entry)
            await self._vacate(entry.int_id)

    def fail(self, error: Callable[[], Exception]) -> None:
        """The engine is gone: everybody who waits, and everybody who comes, gets what `error` makes."""
        self._failure = self._failure or error
        for place in self._queue:
            if not place.done():
                place.set_exception(error())
        self._queue.clear()
        for entry in self._entries.values():
            entry.gone.set()

    async def _join(self, adapter_id: str, weights: W) -> Entry:
        while True:
            self._check()
            entry = self._entries.get(adapter_id)
            if entry is None:
                entry = self._entries[adapter_id] = Entry(adapter_id, self._new_id())
                entry.arrival = asyncio.create_task(self._arrive(entry, weights))
            if not entry.promised:
                break
            await entry.gone.wait()
        entry.refs += 1
        try:
            # Shielded: whoever gives up, the others still wait for the same arrival.
            await asyncio.shield(entry.arrival)
        except BaseException:
            self._leave(entry)
            raise
        self._resident.move_to_end(adapter_id)
        return entry

    async def _arrive(self, entry: Entry, weights: W) -> None:
        try:
            evict = await self._slot()
            entry.has_slot = True
            await self._load(entry.adapter_id, entry.int_id, weights, evict)
        except BaseException:
            self._drop(entry)
            if entry.has_slot:
                self._used -= 1
            self._hand_out()
            raise
        self._resident[entry.adapter_id] = entry
        self._settle(entry)

    def _leave(self, entry: Entry) -> None:
        entry.refs -= 1
        if not entry.refs and not entry.has_slot:  # nobody wants it any more, so it need not wait for one
            entry.arrival.cancel()
            self._drop(entry)
        else:
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """See what an adapter's new state sets free."""
        if entry.doomed and not entry.refs and self._resident.get(entry.adapter_id) is entry:
            self._drop(entry)
            self._chore(self._vacate(entry.int_id))
        else:
            self._hand_out()

    async def _slot(self) -> int | None:
        """Wait for a slot; returns the integer id of the adapter that must leave it."""
        self._check()
        place: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        self._hand_out()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and not place.exception():
                # Handed over in the same moment. The evicted adapter is out of the books, so take it out.
                self._chore(self._vacate(place.result()))
            self._hand_out()
            raise

    async def _vacate(self, int_id: int | None) -> None:
        """Give a slot back, once the adapter in it, already out of the books, is out of the engine too."""
        try:
            if int_id is not None:
                await self._unload(int_id)
        finally:
            self._used -= 1
            self._hand_out()

    def _hand_out(self) -> None:
        """Give slots to the queue, first come first served; called whenever one may have come free."""
        self._queue = deque(place for place in self._queue if not place.done())
        while self._queue:
            if self._used < self.slots:
                self._used += 1
                self._queue.popleft().set_result(None)
                continue
            idle = next((entry for entry in self._resident.values() if not entry.refs), None)
            if idle is None:
                break
            self._drop(idle)
            self._queue.popleft().set_result(idle.int_id)
        self._promise()

    def _promise(self) -> None:
        """Close the least recently leased adapter to new leases while somebody waits, and only then."""
        chosen = next(iter(self._resident.values()), None) if self._queue else None
        for entry in self._resident.values():
            if entry.promised and entry is not chosen:
                entry.promised = False
                entry.gone.set()  # whoever waited for it to go may have it after all
                entry.gone = asyncio.Event()
        if chosen:
            chosen.promised = True

    def _drop(self, entry: Entry) -> None:
        """Take an entry out of the books."""
        if self._entries.get(entry.adapter_id) is entry:
            del self._entries[entry.adapter_id]
        if self._resident.get(entry.adapter_id) is entry:
            del self._resident[entry.adapter_id]
        entry.gone.set()

    def _check(self) -> None:
        if self._failure:
            raise self._failure()

    def _new_id(self) -> int:
        live = {entry.int_id for entry in self._entries.values()}
        while True:
            self._last_id = self._last_id % MAX_ID + 1
            if self._last_id not in live:
                return self._last_id

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled():
            task.exception()  # the engine is dead, and everybody has been told
