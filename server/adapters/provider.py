"""Finds the adapter of a description in memory or in Redis, or generates it."""

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
from server.adapters.buffers import BufferPool
from server.adapters.generator import GeneratedAdapter
from server.adapters.key import AdapterKeyer
from server.adapters.single_flight import SingleFlight
from server.adapters.tiered import TieredStore
from server.observability.metrics import Metrics

BUFFER_FILL_DELAY_S = 0.2
"""Seconds from the last generated adapter to the allocation of the next buffer. By then the engine
has loaded that adapter, so that the allocation delays no request."""

Source = Literal["memory", "redis", "generated"]


@dataclass(frozen=True, slots=True)
class ProvidedAdapter:
    """An adapter, its source, and the seconds that its generation took (0 if it was cached)."""

    adapter: Adapter
    source: Source
    queue_s: float = 0.0
    embed_s: float = 0.0
    generate_s: float = 0.0
    device_weights: LoraWeights | None = field(default=None, repr=False)
    """The weights on the hypernetwork's device, for an engine that shares device memory."""

    @property
    def weights(self) -> LoraWeights:
        """The weights to load: those on the device if there are any."""
        return self.device_weights or self.adapter.weights


class AdapterProvider:
    """Finds or generates adapters. Simultaneous requests for one adapter share one generation."""

    def __init__(
        self,
        key: AdapterKeyer,
        store: TieredStore,
        batcher: Batcher[str, GeneratedAdapter],
        metrics: Metrics,
        spec: LoraSpec,
        now: Callable[[], float] = time.time,
        *,
        keep_device_weights: bool = False,
    ) -> None:
        self.key = key
        self.store = store
        self.batcher = batcher
        self._metrics = metrics
        self._now = now
        self._keep_device_weights = keep_device_weights
        self._buffers = BufferPool(spec)
        self._fill_timer: asyncio.TimerHandle | None = None
        self._flights: SingleFlight[ProvidedAdapter] = SingleFlight()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._buffers.fill)
        await self._open.enter_async_context(self.batcher)
        if self.store.shared is not None:
            self._open.push_async_callback(self.store.shared.store.close)
            self._open.push_async_callback(self.store.shared.writes.stop)
            self.store.shared.writes.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._fill_timer is not None:
            self._fill_timer.cancel()
        await self._open.aclose()

    async def get(self, adapter_id: str, description: str) -> ProvidedAdapter:
        """The adapter of a normalised description.

        Raises:
            OverloadedError: too many descriptions wait for the hypernetwork.
            GenerationFailedError: the hypernetwork failed.
            AdapterRejectedError: the generated weights are unusable.
        """
        adapter = self.store.in_memory(adapter_id)
        if adapter is not None:
            return ProvidedAdapter(adapter, "memory")
        return await self._flights.do(adapter_id, lambda: self._fetch_or_generate(adapter_id, description))

    async def _fetch_or_generate(self, adapter_id: str, description: str) -> ProvidedAdapter:
        adapter = await self.store.in_redis(adapter_id)
        if adapter is not None:
            return ProvidedAdapter(adapter, "redis")
        generated, queue_s = await self.batcher.submit(description)
        created_us = int(self._now() * 1e6)
        adapter = await asyncio.to_thread(
            lambda: Adapter.from_weights(
                adapter_id, description, created_us, generated.weights, self._buffers.acquire()
            )
        )
        self._schedule_buffer_fill()
        self._metrics.adapters_generated.inc()
        self.store.put(adapter)
        device_weights = generated.weights if self._keep_device_weights else None
        timings = queue_s, generated.embed_s, generated.generate_s
        return ProvidedAdapter(adapter, "generated", *timings, device_weights)

    def _schedule_buffer_fill(self) -> None:
        """Allocate a buffer after a pause: only on an idle machine does the allocation take
        long.
        """
        if self._fill_timer is not None:
            self._fill_timer.cancel()
        loop = asyncio.get_running_loop()
        self._fill_timer = loop.call_later(BUFFER_FILL_DELAY_S, loop.run_in_executor, None, self._buffers.fill)
