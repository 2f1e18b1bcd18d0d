"""The first cache tier: an LRU cache of adapters in this process, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from server.adapters.adapter import Adapter


class MemoryStore:
    """An LRU cache. Not thread-safe: only the event loop uses it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self.nbytes = 0
        """Bytes of all cached weights."""

    def __len__(self) -> int:
        return len(self._adapters)

    def __iter__(self) -> Iterator[Adapter]:
        """All adapters, in unspecified order."""
        return iter(self._adapters.values())

    def get(self, adapter_id: str) -> Adapter | None:
        """The adapter, or None. Marks it as the most recently used."""
        adapter = self._adapters.get(adapter_id)
        if adapter is not None:
            self._adapters.move_to_end(adapter_id)
        return adapter

    def put(self, adapter: Adapter) -> None:
        """Cache an adapter and evict others as needed.

        An adapter larger than the store is not cached.
        """
        self.remove(adapter.id)
        if adapter.nbytes > self._max_bytes:
            return
        self._adapters[adapter.id] = adapter
        self.nbytes += adapter.nbytes
        while self.nbytes > self._max_bytes:
            _, evicted = self._adapters.popitem(last=False)
            self.nbytes -= evicted.nbytes

    def remove(self, adapter_id: str) -> bool:
        """Remove an adapter. Returns whether it was cached."""
        adapter = self._adapters.pop(adapter_id, None)
        if adapter is not None:
            self.nbytes -= adapter.nbytes
        return adapter is not None
