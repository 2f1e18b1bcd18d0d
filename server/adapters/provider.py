"""The adapter for a description, however it can be had: memory, Redis, a twin's work, or a new pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal, Self

from hypernet.config import LoraSpec
from hypernet.lora import LoraWeights
from server.adapters.adapter import Adapter
from server.adapters.batcher import Batcher
from server.adapters.buffers import PagesAhead
from server.adapters.generator import Written
from server.adapters.key import AdapterKeyer
from server.adapters.single_flight import SingleFlight
from server.adapters.tiered import TieredStore
from server.observability.metrics import Metrics

REFILL_S = 0.2
"""From the last taking of pages to the fetching of more: whoever took them is with the engine by then."""

Source = Literal["memory", "redis", "generated"]


@dataclass(frozen=True, slots=True)
class Found:
    """An adapter, where it came from, and the seconds that making it took (0 when it was not made)."""

    adapter: Adapter
    source: Source
    queue_s: float = 0.0
    embed_s: float = 0.0
    generate_s: float = 0.0
    fresh: LoraWeights | None = field(default=None, repr=False)
    """Its weights where the hypernetwork wrote them, for an engine that can take them from there."""

    @property
    def weights(self) -> LoraWeights:
        """What to load: the nearest there is."""
        return self.fresh or self.adapter.weights


class AdapterLibrary:
    """Finds or makes adapters; nothing is ever made twice at once."""

    def __init__(
        self,
        key: AdapterKeyer,
        store: TieredStore,
        batcher: Batcher[str, Written],
        metrics: Metrics,
        spec: LoraSpec,
        now: Callable[[], float] = time.time,
        *,
        keep_fresh: bool = False,
    ) -> None:
        self.key = key
        self.store = store
        self.batcher = batcher
        self._metrics = metrics
        self._now = now
        self._keep_fresh = keep_fresh
        self._pages = PagesAhead(spec)
        self._refill: asyncio.TimerHandle | None = None
        self._flights: SingleFlight[Found] = SingleFlight()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._pages.fetch)
        await self._open.enter_async_context(self.batcher)
        if self.store.shared is not None:
            self._open.push_async_callback(self.store.shared.store.close)
            self._open.push_async_callback(self.store.shared.writes.stop)
            self.store.shared.writes.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._refill is not None:
            self._refill.cancel()
        await self._open.aclose()

    async def get(self, adapter_id: str, description: str) -> Found:
        """The adapter of a normalised description.

        Raises:
            OverloadedError: too many descriptions wait for the hypernetwork.
            GenerationFailedError: the hypernetwork failed.
            AdapterRejectedError: what it wrote is unusable.
        """
        adapter = self.store.in_memory(adapter_id)
        if adapter is not None:
            return Found(adapter, "memory")
        return await self._flights.do(adapter_id, lambda: self._fetch_or_make(adapter_id, description))

    async def _fetch_or_make(self, adapter_id: str, description: str) -> Found:
        adapter = await self.store.in_redis(adapter_id)
        if adapter is not None:
            return Found(adapter, "redis")
        written, queue_s = await self.batcher.submit(description)
        created_us = int(self._now() * 1e6)
        adapter = await asyncio.to_thread(
            lambda: Adapter.seal(adapter_id, description, created_us, written.weights, self._pages.take())
        )
        self._refill_soon()
        self._metrics.adapters_generated.inc()
        self.store.put(adapter)
        fresh = written.weights if self._keep_fresh else None
        return Found(adapter, "generated", queue_s, written.embed_s, written.generate_s, fresh)

    def _refill_soon(self) -> None:
        """Fetch pages once no adapter has been made for a while: only an idle machine is slow to find them."""
        if self._refill is not None:
            self._refill.cancel()
        loop = asyncio.get_running_loop()
        self._refill = loop.call_later(REFILL_S, loop.run_in_executor, None, self._pages.fetch)
