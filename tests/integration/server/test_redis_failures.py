"""No HTTP request fails when a real Redis-protocol server starts, hangs,
returns garbage or is killed.
"""

import asyncio
import time

import pytest

from tests.support.server_fakes import eventually

pytestmark = pytest.mark.integration


async def source(running, description):
    body = {"task_description": description, "prompt": "p", "max_tokens": 2}
    answer = await running.http.post("/v1/generate", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["adapter"]["source"]


def settings(valkey):
    return {"redis_url": valkey.url, "redis_timeout_s": 0.3, "redis_cooldown_s": 0.2}


async def ready(running):
    response = await running.http.get("/ready")
    assert response.status_code == 200
    return response.json()["status"]


async def written(running, n):
    async with asyncio.timeout(5):
        while (await running.metrics()).get('t2l_cache_writes_total{outcome="ok"}', 0) < n:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_second_server_finds_adapters_of_the_first(launch, valkey):
    async with launch(**settings(valkey)) as first:
        assert await source(first, "x") == "generated"
    async with launch(**settings(valkey)) as second:
        assert await source(second, "x") == "redis"
        assert await source(second, "x") == "memory"
        assert second.generator.batches == []
        listed = (await second.http.get("/v1/adapters")).json()
        assert [a["task_description"] for a in listed["data"]] == ["x"]
        assert await ready(second) == "ok"


async def test_server_with_another_cache_key_shares_nothing(launch, valkey):
    async with launch(**settings(valkey), cache_key="one") as first:
        await source(first, "x")
    async with launch(**settings(valkey), cache_key="two") as second:
        assert await source(second, "x") == "generated"
        assert len((await second.http.get("/v1/adapters")).json()["data"]) == 1


async def test_stop_writes_the_queued_adapters(launch, valkey):
    async with launch(**settings(valkey)) as first:
        for i in range(20):
            await source(first, str(i))
    assert len(valkey.client().keys("t2l:1:*:adapter:*")) == 20


async def test_delete_reaches_redis(launch, valkey):
    async with launch(**settings(valkey)) as running:
        body = {"task_description": "x"}
        made = (await running.http.post("/v1/adapters", json=body)).json()
        await written(running, 1)
        assert (await running.http.delete(f"/v1/adapters/{made['id']}")).status_code == 204
        assert valkey.client().keys("t2l:1:*:adapter:*") == []
        assert (await running.http.post("/v1/adapters", json=body)).status_code == 201


async def test_without_redis_requests_succeed_and_ready_says_degraded(launch, valkey):
    valkey.kill()
    async with launch(**settings(valkey)) as running:
        assert await source(running, "x") == "generated"
        assert await source(running, "x") == "memory"
        assert await ready(running) == "degraded"
        listed = (await running.http.get("/v1/adapters")).json()
        assert (len(listed["data"]), listed["complete"]) == (1, False)
        refused = await running.http.delete(f"/v1/adapters/{listed['data'][0]['id']}")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "store_unavailable"
        valkey.restart()
        async with asyncio.timeout(5):
            while await ready(running) != "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await running.metrics())["t2l_redis_breaker_open"] == 0


async def test_killed_redis_loses_no_request(launch, valkey):
    async with launch(**settings(valkey)) as running:
        asking = [asyncio.create_task(source(running, str(i % 40))) for i in range(120)]
        await eventually(lambda: len(running.generator.generated) > 5)
        valkey.kill()
        asking += [asyncio.create_task(source(running, str(i))) for i in range(60)]
        sources = await asyncio.gather(*asking)
        assert set(sources) <= {"generated", "memory"}
        assert len(running.generator.generated) == 60


async def test_hung_redis_loses_no_request(launch, valkey):
    async with launch(**settings(valkey)) as running:
        await source(running, "before")
        valkey.hang()
        start = time.monotonic()
        assert await asyncio.gather(*(source(running, str(i)) for i in range(30))) == ["generated"] * 30
        assert time.monotonic() - start < 3
        assert await ready(running) == "degraded"
        valkey.wake()
        assert await source(running, "after") == "generated"


async def test_corrupt_value_in_redis_loses_no_request_and_is_replaced(launch, valkey):
    async with launch(**settings(valkey)) as first:
        for text in ("x", "y"):
            await source(first, text)
    client = valkey.client()
    for key in client.keys("t2l:1:*:adapter:*"):
        client.setrange(key, client.strlen(key) // 2, b"\xff\xff\xff\xff")
    async with launch(**settings(valkey)) as second:
        assert [await source(second, text) for text in ("x", "y")] == ["generated", "generated"]
        metrics = await second.metrics()
        assert metrics['t2l_cache_lookups_total{outcome="corrupt",tier="redis"}'] == 2
    async with launch(**settings(valkey)) as third:
        assert await source(third, "x") == "redis"
