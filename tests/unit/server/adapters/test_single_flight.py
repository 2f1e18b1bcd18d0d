import asyncio

import pytest

from server.adapters.single_flight import SingleFlight


class Work:
    def __init__(self):
        self.runs = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.failure = None

    async def __call__(self):
        self.runs += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure:
            raise self.failure
        return self.runs


async def join(flights, work, n, key="k"):
    tasks = [asyncio.create_task(flights.do(key, work)) for _ in range(n)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_simultaneous_callers_share_one_task():
    flights, work = SingleFlight(), Work()
    tasks = await join(flights, work, 100)
    work.go.set()
    assert await asyncio.gather(*tasks) == [1] * 100
    assert len(flights) == 0


async def test_keys_are_independent_and_results_are_not_kept():
    flights, work = SingleFlight(), Work()
    work.go.set()
    assert await flights.do("a", work) == 1
    assert await flights.do("b", work) == 2
    assert await flights.do("a", work) == 3


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_cancelled_caller_leaves_others_unaffected(leaver):
    flights, work = SingleFlight(), Work()
    tasks = await join(flights, work, 3)
    tasks[leaver].cancel()
    await asyncio.wait([tasks[leaver]])
    work.go.set()
    rest = [t for i, t in enumerate(tasks) if i != leaver]
    assert await asyncio.gather(*rest) == [1, 1]
    assert work.cancelled == 0


async def test_task_is_cancelled_with_its_last_caller():
    flights, work = SingleFlight(), Work()
    for task in await join(flights, work, 3):
        task.cancel()
    (late,) = await join(flights, work, 1)
    assert work.cancelled == 1
    work.go.set()
    assert await late == 2


async def test_failure_reaches_all_callers_and_the_next_call_retries():
    flights, work = SingleFlight(), Work()
    work.failure = ValueError("no")
    tasks = await join(flights, work, 5)
    work.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(o, ValueError) for o in outcomes)
    work.failure = None
    assert await flights.do("k", work) == 2
