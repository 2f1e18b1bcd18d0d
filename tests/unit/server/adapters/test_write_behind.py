import asyncio

from server.adapters.write_behind import WriteBehind
from server.observability.metrics import Metrics
from tests.support.server_fakes import adapter_for

A, B, C = (adapter_for(text) for text in "abc")


class Slow:
    def __init__(self):
        self.written = []
        self.go = asyncio.Event()
        self.failure = None

    async def __call__(self, adapter):
        await self.go.wait()
        if self.failure:
            failure, self.failure = self.failure, None
            raise failure
        self.written.append(adapter.id)


def make(max_bytes=10 * A.nbytes):
    slow, metrics = Slow(), Metrics()
    writes = WriteBehind(slow, metrics, max_bytes)
    writes.start()
    return writes, slow, metrics


def count(metrics, outcome):
    return metrics.registry.get_sample_value("t2l_cache_writes_total", {"outcome": outcome}) or 0


async def test_adapters_are_written_in_order_without_blocking_put():
    writes, slow, _ = make()
    for adapter in (A, B, A, C):
        writes.put(adapter)
    slow.go.set()
    assert await writes.flush(5)
    assert slow.written == [A.id, B.id, C.id]
    await writes.stop()


async def test_full_queue_drops_and_counts():
    writes, slow, metrics = make(max_bytes=A.nbytes)
    writes.put(A)
    writes.put(B)
    assert count(metrics, "dropped") == 1
    assert writes.nbytes == A.nbytes
    slow.go.set()
    await writes.flush(5)
    assert writes.nbytes == 0
    await writes.stop()


async def test_failed_write_does_not_stop_the_next():
    writes, slow, metrics = make()
    slow.failure = ValueError("surprise")
    slow.go.set()
    writes.put(A)
    writes.put(B)
    await writes.flush(5)
    assert slow.written == [B.id]
    assert count(metrics, "error") == 1
    await writes.stop()


async def test_cancelled_adapter_is_not_written_afterwards():
    writes, slow, _ = make()
    writes.put(A)
    writes.put(B)
    await asyncio.sleep(0)
    await writes.cancel(B.id)  # still queued
    cancelling = asyncio.create_task(writes.cancel(A.id))  # waits for the running write
    await asyncio.sleep(0)
    assert not cancelling.done()
    slow.go.set()
    await cancelling
    assert slow.written == [A.id]
    await writes.stop()


async def test_cancel_covers_a_running_and_a_queued_write():
    writes, slow, _ = make()
    writes.put(A)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writes.put(A)  # queued again during its first write
    cancelling = asyncio.create_task(writes.cancel(A.id))
    await asyncio.sleep(0)
    assert not cancelling.done() and writes.nbytes == 0
    slow.go.set()
    await cancelling
    assert await writes.flush(5)
    assert slow.written == [A.id]
    await writes.stop()


async def test_flush_returns_false_after_its_timeout():
    writes, _, _ = make()
    writes.put(A)
    assert not await writes.flush(0.01)
    await writes.stop()
