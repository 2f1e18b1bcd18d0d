import asyncio
import threading
import weakref

import pytest

from server.adapters.batcher import Batcher
from server.errors import GenerationFailedError, OverloadedError, UnavailableError
from server.observability.metrics import Metrics
from tests.support.server_fakes import eventually


class Worker:
    """Doubles numbers while its gate is open. Records batches and threads."""

    def __init__(self):
        self.batches, self.threads = [], set()
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.result = lambda items: [2 * i for i in items]

    def __call__(self, items):
        self.batches.append(items)
        self.threads.add(threading.current_thread())
        self.started.release()
        assert self.gate.wait(10)
        return self.result(items)


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
async def batcher(worker):
    async with Batcher(worker, max_batch=4, max_queue=6, metrics=Metrics(), clock=lambda: 0.0) as made:
        yield made
        worker.gate.set()


async def submit(batcher, items):
    tasks = [asyncio.create_task(batcher.submit(i)) for i in items]
    await asyncio.sleep(0)
    return tasks


async def busy(batcher, worker):
    """Start a batch, so that further items must wait."""
    (task,) = await submit(batcher, [0])
    await asyncio.to_thread(worker.started.acquire)
    return task


async def test_single_item_is_computed_at_once(batcher, worker):
    worker.gate.set()
    assert await batcher.submit(21) == (42, 0.0)
    assert worker.batches == [[21]]


async def test_idle_batcher_keeps_no_result_alive(batcher, worker):
    class Result:
        pass

    worker.result = lambda items: [Result() for _ in items]
    worker.gate.set()
    result, _ = await batcher.submit(1)
    watched = weakref.ref(result)
    del result
    await eventually(lambda: watched() is None)


async def test_depth_can_be_read_by_another_thread(batcher, worker):
    await busy(batcher, worker)
    stop, errors = threading.Event(), []

    def read_depth():
        try:
            while not stop.is_set():
                assert batcher.depth >= 0
        except RuntimeError as error:
            errors.append(error)

    reading = asyncio.create_task(asyncio.to_thread(read_depth))
    for _ in range(300):
        for task in await submit(batcher, range(6)):
            task.cancel()
        await asyncio.sleep(0)
        batcher._queue.clear()
    stop.set()
    await reading
    assert not errors


async def test_next_batch_collects_items_while_one_is_computed(batcher, worker):
    first = await busy(batcher, worker)
    rest = await submit(batcher, [1, 2, 3, 4, 5])
    worker.gate.set()
    assert [r for r, _ in await asyncio.gather(first, *rest)] == [0, 2, 4, 6, 8, 10]
    assert worker.batches == [[0], [1, 2, 3, 4], [5]]
    assert len(worker.threads) == 1
    assert threading.main_thread() not in worker.threads


async def test_cancelled_waiting_item_is_not_computed(batcher, worker):
    first = await busy(batcher, worker)
    stay, leave, last = await submit(batcher, [1, 2, 3])
    leave.cancel()
    await asyncio.wait([leave])
    assert batcher.depth == 2
    worker.gate.set()
    await asyncio.gather(first, stay, last)
    assert worker.batches == [[0], [1, 3]]


async def test_cancel_during_a_batch_leaves_the_next_unaffected(batcher, worker):
    first = await busy(batcher, worker)
    first.cancel()
    (next_one,) = await submit(batcher, [1])
    worker.gate.set()
    assert (await next_one)[0] == 2


async def test_full_queue_rejects_items(batcher, worker):
    first = await busy(batcher, worker)
    waiting = await submit(batcher, range(6))
    with pytest.raises(OverloadedError):
        await batcher.submit(99)
    waiting[0].cancel()  # a cancelled item frees its place at once
    await asyncio.wait([waiting[0]])
    (another,) = await submit(batcher, [6])
    worker.gate.set()
    await asyncio.gather(first, another, *waiting[1:])
    assert another.result()[0] == 12


async def test_failure_reaches_every_caller_of_its_batch_and_no_other(batcher, worker):
    first = await busy(batcher, worker)

    def fail_on_two(items):
        if 2 in items:
            raise ValueError("two")
        return items

    worker.result = fail_on_two
    one, two, three, four, five = await submit(batcher, [1, 2, 3, 4, 5])
    worker.gate.set()
    outcomes = await asyncio.gather(one, two, three, four, return_exceptions=True)
    assert all(isinstance(o, GenerationFailedError) for o in outcomes)
    assert isinstance(outcomes[0].__cause__, ValueError)
    assert len({id(o) for o in outcomes}) == 4
    assert (await first)[0] == 0
    assert (await five)[0] == 5


async def test_wrong_number_of_results_is_a_failure(batcher, worker):
    worker.gate.set()
    worker.result = lambda items: []
    with pytest.raises(GenerationFailedError):
        await batcher.submit(1)


async def test_waiting_time_is_returned(worker):
    now = 10.0
    async with Batcher(worker, max_batch=4, max_queue=6, metrics=Metrics(), clock=lambda: now) as batcher:
        first = await busy(batcher, worker)
        (second,) = await submit(batcher, [1])
        now = 12.5
        worker.gate.set()
        await first
        assert (await second)[1] == 2.5


async def test_stopping_fails_all_pending_items(worker):
    async with Batcher(worker, max_batch=1, max_queue=6, metrics=Metrics(), clock=lambda: 0.0) as batcher:
        computing = await busy(batcher, worker)
        (waiting,) = await submit(batcher, [1])
        computing.add_done_callback(lambda _: worker.gate.set())  # lets the worker thread end
    for task in (computing, waiting):
        with pytest.raises(UnavailableError):
            await task
    with pytest.raises(UnavailableError):
        await batcher.submit(2)
