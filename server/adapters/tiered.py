"""Both cache tiers as one store: memory first, then Redis if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest

from server.adapters.adapter import Adapter, AdapterInfo
from server.adapters.memory import MemoryStore
from server.adapters.redis_store import RedisStore, RedisUnavailableError
from server.adapters.write_behind import WriteBehind
from server.errors import StoreUnavailableError
from server.observability.metrics import Metrics

Cursor = tuple[int, str]
"""(created_us, id) of the last adapter of a page. Listings start with the newest adapter."""


@dataclass(frozen=True, slots=True)
class SharedTier:
    """Redis and its write-behind queue."""

    store: RedisStore
    writes: WriteBehind


class TieredStore:
    """All cached adapters."""

    def __init__(self, memory: MemoryStore, shared: SharedTier | None, metrics: Metrics) -> None:
        self.memory = memory
        self.shared = shared
        self._lookups = metrics.lookups
        self._deletions = 0

    def in_memory(self, adapter_id: str) -> Adapter | None:
        """The adapter from memory, or None. Does not wait."""
        adapter = self.memory.get(adapter_id)
        self._lookups.labels("memory", "miss" if adapter is None else "hit").inc()
        return adapter

    async def in_redis(self, adapter_id: str) -> Adapter | None:
        """The adapter from Redis, which is then cached in memory, too.

        A Redis that fails is a miss.
        """
        if self.shared is None:
            return None
        before = self._deletions
        adapter = await self.shared.store.get(adapter_id)
        if adapter is not None and before == self._deletions:  # else it may have been deleted during the read
            self.memory.put(adapter)
        return adapter

    async def get(self, adapter_id: str) -> Adapter | None:
        """The adapter from either tier, or None."""
        return self.in_memory(adapter_id) or await self.in_redis(adapter_id)

    async def info(self, adapter_id: str) -> AdapterInfo | None:
        """An adapter's metadata, or None. Reads no weights."""
        adapter = self.memory.get(adapter_id)
        if adapter is not None:
            return adapter.info
        return await self.shared.store.info(adapter_id) if self.shared else None

    def put(self, adapter: Adapter) -> None:
        """Cache a new adapter: in memory now, in Redis through the write-behind queue."""
        self.memory.put(adapter)
        if self.shared is not None:
            self.shared.writes.put(adapter)

    async def delete(self, adapter_id: str) -> bool:
        """Remove an adapter from both tiers. Returns whether either had it.

        Raises:
            StoreUnavailableError: Redis may still have it, and a later lookup would find it there.
        """
        self._deletions += 1
        found = self.memory.remove(adapter_id)
        if self.shared is None:
            return found
        await self.shared.writes.cancel(adapter_id)
        try:
            return await self.shared.store.delete(adapter_id) or found
        except RedisUnavailableError as error:
            raise StoreUnavailableError(
                "Redis does not answer, so the adapter may still be in it. Retry later"
            ) from error

    async def page(self, limit: int, after: Cursor | None) -> tuple[list[AdapterInfo], bool]:
        """Up to `limit` adapters after the cursor, newest first, and whether Redis answered.

        Both tiers have the same order, so the page is the first `limit` of their two pages.
        """
        held = (adapter.info for adapter in self.memory)
        found = {info.id: info for info in held if after is None or _cursor(info) < after}
        complete = True
        if self.shared is not None:
            try:
                found |= {info.id: info for info in await self.shared.store.page(limit, after)}
            except RedisUnavailableError:
                complete = False
        return nlargest(limit, found.values(), key=_cursor), complete


def _cursor(info: AdapterInfo) -> Cursor:
    return info.created_us, info.id
