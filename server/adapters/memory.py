"""The first tier: adapters in this process, bounded in bytes, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from server.adapters.adapter import Adapter


class MemoryStore:
    """An LRU cache. Belongs to the event loop: not thread-safe, and needs not be."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self.nbytes = 0
        """Bytes of all weights held."""

    def __len__(self) -> int:
        return len(self._adapters)

    def __iter__(self) -> Iterator[Adapter]:
        """All adapters, in no promised order."""
        return iter(self._adapters.values())

    def get(self, adapter_id: str) -> Adapter | None:
        """The adapter, now the most recently used."""
        adapter = self._adapters.get(adapter_id)
        if adapter is not None:
            self._adapters.move_to_end(adapter_id)
        return adapter

    def put(self, adapter: Adapter) -> None:
        """Keep an adapter, evicting others as needed; one larger than the whole store is not kept."""
        self.remove(adapter.id)
        if adapter.nbytes > self._max_bytes:
            return
        self._adapters[adapter.id] = adapter
        self.nbytes += adapter.nbytes
        while self.nbytes > self._max_bytes:
            _, evicted = self._adapters.popitem(last=False)
            self.nbytes -= evicted.nbytes

    def remove(self, adapter_id: str) -> bool:
        """Forget an adapter; whether there was one."""
        adapter = self._adapters.pop(adapter_id, None)
        if adapter is not None:
            self.nbytes -= adapter.nbytes
        return adapter is not None
