"""Both tiers as one store: an adapter that is deleted during a read is not cached again."""

import asyncio

from server.adapters.memory import MemoryStore
from server.adapters.tiered import SharedTier, TieredStore
from server.adapters.write_behind import WriteBehind
from server.observability.metrics import Metrics
from tests.support.server_fakes import adapter_for

A = adapter_for("a")


class SlowStore:
    """A Redis store that has read an adapter and has not decoded it yet."""

    def __init__(self):
        self.decoded = asyncio.Event()

    async def get(self, adapter_id):
        await self.decoded.wait()
        return A

    async def delete(self, adapter_id):
        return True

    async def put(self, adapter):
        pass


def make():
    metrics, slow = Metrics(), SlowStore()
    writes = WriteBehind(slow.put, metrics, 10 * A.nbytes)
    return TieredStore(MemoryStore(10 * A.nbytes), SharedTier(slow, writes), metrics), slow


async def test_deletion_during_a_read_keeps_the_adapter_out_of_memory():
    tiers, slow = make()
    reading = asyncio.create_task(tiers.in_redis(A.id))
    await asyncio.sleep(0)
    assert await tiers.delete(A.id)
    slow.decoded.set()
    assert (await reading).id == A.id  # the earlier request still gets the adapter
    assert tiers.in_memory(A.id) is None


async def test_adapter_read_from_redis_is_cached_in_memory():
    tiers, slow = make()
    slow.decoded.set()
    await tiers.in_redis(A.id)
    assert tiers.in_memory(A.id) is A
