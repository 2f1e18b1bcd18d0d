"""The Redis store against a real Redis-protocol server, including its failures."""

import asyncio

import pytest
from redis.asyncio import Redis

from server.adapters.breaker import CircuitBreaker
from server.adapters.codec import AdapterCodec
from server.adapters.redis_store import RedisStore, RedisUnavailableError
from server.observability.metrics import Metrics
from tests.support.server_fakes import SPEC, adapter_for

pytestmark = pytest.mark.integration

CODEC = AdapterCodec(b"k" * 32, SPEC)
A, B, C = (adapter_for(text, created_us=i) for i, text in enumerate("abc", 1))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def make(url, *, spec=SPEC, max_bytes=10**9, ttl_s=60, timeout_s=0.3, clock=None, now=lambda: 0.0):
    metrics = Metrics()
    store = RedisStore(
        RedisStore.connect(url, timeout_s),
        AdapterCodec(b"k" * 32, spec),
        CircuitBreaker(failures=3, cooldown_s=5, clock=clock or Clock()),
        metrics,
        namespace="test",
        ttl_s=ttl_s,
        max_bytes=max_bytes,
        timeout_s=timeout_s,
        now=now,
    )
    return store, metrics


def lookups(metrics, outcome):
    labels = {"tier": "redis", "outcome": outcome}
    return metrics.registry.get_sample_value("t2l_cache_lookups_total", labels) or 0


def writes(metrics, outcome):
    return metrics.registry.get_sample_value("t2l_cache_writes_total", {"outcome": outcome}) or 0


@pytest.fixture
async def store(valkey):
    made, metrics = make(valkey.url)
    made.metrics = metrics
    yield made
    await made.close()


async def test_stored_adapter_is_read_back_unchanged(store):
    assert await store.get(A.id) is None
    await store.put(A)
    back = await store.get(A.id)
    assert back.info == A.info
    assert back.weights.flatten().equal(A.weights.flatten())
    assert (lookups(store.metrics, "miss"), lookups(store.metrics, "hit")) == (1, 1)
    assert writes(store.metrics, "ok") == 1


async def test_value_has_its_ttl(store, valkey):
    await store.put(A)
    assert 0 < valkey.client().ttl(f"t2l:1:test:adapter:{A.id}") <= 60


@pytest.mark.parametrize(
    "garbage",
    [b"x", b"\x80\x04pickle", b"\x00" * 5_000_000, CODEC.encode(A)[:-1], CODEC.encode(B)],
    ids=["short", "pickle", "huge", "truncated", "another"],
)
async def test_corrupt_value_is_counted_and_replaced_by_the_next_write(store, valkey, garbage):
    valkey.client().set(f"t2l:1:test:adapter:{A.id}", garbage)
    assert await store.get(A.id) is None
    assert lookups(store.metrics, "corrupt") == 1
    assert store.breaker.healthy
    await store.put(A)
    assert (await store.get(A.id)).id == A.id


async def test_key_of_another_type_is_an_error_until_the_next_write(store, valkey):
    valkey.client().lpush(f"t2l:1:test:adapter:{A.id}", "x")
    assert await store.get(A.id) is None
    assert lookups(store.metrics, "error") == 1
    await store.put(A)
    assert (await store.get(A.id)).id == A.id


async def test_adapter_of_another_spec_is_refused(store, valkey):
    other = SPEC.model_copy(update={"rank": 3})
    foreign, _ = make(valkey.url, spec=other)
    await foreign.put(adapter_for("a", adapter_id=A.id, spec=other))
    await foreign.close()
    assert await store.get(A.id) is None
    assert lookups(store.metrics, "corrupt") == 1


async def test_oldest_adapters_beyond_the_byte_limit_are_deleted(valkey):
    store, _ = make(valkey.url, max_bytes=2 * A.nbytes)
    for adapter in (A, B, C):
        await store.put(adapter)
    assert await store.get(A.id) is None
    assert [info.id for info in await store.page(10, None)] == [C.id, B.id]
    assert valkey.client().zcard("t2l:1:test:index") == 2
    await store.close()


async def test_limit_below_one_adapter_writes_nothing(valkey):
    store, metrics = make(valkey.url, max_bytes=A.nbytes - 1)
    await store.put(A)
    assert writes(metrics, "too_large") == 1
    assert valkey.client().dbsize() == 0
    await store.close()


async def test_expired_members_are_removed_from_the_index(valkey):
    store, _ = make(valkey.url, ttl_s=60, now=lambda: 100.0)
    await store.put(A)  # created at 1 us, so 100 s old
    await store.put(adapter_for("young", created_us=100 * 10**6))
    assert valkey.client().zcard("t2l:1:test:index") == 1
    await store.close()


async def test_pages_are_complete_for_equal_creation_times(store):
    made = [adapter_for(str(i), created_us=1 + i // 20) for i in range(30)]
    for adapter in made:
        await store.put(adapter)
    listed, after = [], None
    while page := await store.page(4, after):
        listed += page
        after = (page[-1].created_us, page[-1].id)
    assert [i.id for i in listed] == [
        a.id for a in sorted(made, key=lambda a: (a.created_us, a.id), reverse=True)
    ]


async def test_metadata_is_read_without_the_weights(store, valkey):
    await store.put(A)
    valkey.client().setrange(f"t2l:1:test:adapter:{A.id}", len(CODEC.encode(A)) - 2, b"??")
    assert await store.info(A.id) == A.info  # the header is whole
    assert await store.get(A.id) is None
    assert await store.info("0" * 32) is None


async def test_error_response_does_not_open_the_breaker(store, valkey):
    await store.put(A)
    await store.put(B)
    client = valkey.client()
    client.delete(f"t2l:1:test:adapter:{B.id}")
    client.lpush(f"t2l:1:test:adapter:{B.id}", "x")
    assert await store.page(10, None) == [A.info]
    for _ in range(5):
        assert await store.get(B.id) is None
    assert lookups(store.metrics, "error") == 5
    assert (await store.get(A.id)).id == A.id and await store.check()


async def test_page_has_long_descriptions_and_skips_missing_values(store, valkey):
    long = adapter_for("\U0001f600" * 8192, created_us=9)
    for adapter in (A, B, C, long):
        await store.put(adapter)
    valkey.client().delete(f"t2l:1:test:adapter:{B.id}")
    valkey.client().set(f"t2l:1:test:adapter:{C.id}", b"garbage")
    assert await store.page(10, None) == [long.info, A.info]


async def test_delete_removes_value_and_index_member(store):
    await store.put(A)
    assert await store.delete(A.id)
    assert not await store.delete(A.id)
    assert await store.page(10, None) == []


async def test_hung_redis_costs_timeouts_until_the_breaker_opens(valkey):
    clock = Clock()
    store, metrics = make(valkey.url, clock=clock)
    await store.put(A)
    valkey.hang()
    start = asyncio.get_running_loop().time()
    for _ in range(10):
        assert await store.get(A.id) is None
    assert asyncio.get_running_loop().time() - start < 3 * 0.3 + 0.5
    assert (lookups(metrics, "timeout"), lookups(metrics, "skipped")) == (3, 7)
    with pytest.raises(RedisUnavailableError):
        await store.delete(A.id)
    assert not await store.check()
    valkey.wake()
    clock.now = 5
    assert (await store.get(A.id)).id == A.id
    assert await store.check()
    await store.close()


async def test_killed_redis_is_counted_and_used_again_after_its_restart(valkey):
    clock = Clock()
    store, metrics = make(valkey.url, clock=clock)
    await store.put(A)
    valkey.kill()
    assert await store.get(A.id) is None
    await store.put(B)
    assert lookups(metrics, "error") == 1
    assert writes(metrics, "error") == 1
    valkey.restart()
    await store.put(C)
    assert (await store.get(C.id)).id == C.id
    await store.close()


async def test_concurrent_calls_share_a_bounded_pool(store, valkey):
    await store.put(A)
    found = await asyncio.gather(*(store.get(A.id) for _ in range(200)))
    assert all(adapter.id == A.id for adapter in found)
    assert len(valkey.client().client_list()) <= 17


async def test_cancelled_call_leaves_no_response_for_the_next(store):
    for adapter in (A, B):
        await store.put(adapter)
    for _ in range(20):
        task = asyncio.create_task(store.get(A.id))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await store.get(B.id)).id == B.id


def test_client_connects_lazily():
    assert isinstance(RedisStore.connect("redis://127.0.0.1:1/0", 0.1), Redis)
