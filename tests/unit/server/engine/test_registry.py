"""The registry on a fake engine of two callables, which fails on anything that must never
happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine import registry as registry_module
from server.engine.registry import AdapterRegistry


class FakeEngine:
    """Slots as in vLLM. Too many adapters, or evicting one that is not loaded, fails the test."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.inside: dict[int, str] = {}
        self.loads: list[str] = []
        self.refuse: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}

    async def load(self, adapter_id: str, int_id: int, weights: str, evict: int | None) -> None:
        self.loads.append(adapter_id)
        assert weights == f"weights of {adapter_id}"
        if evict is not None:
            del self.inside[evict]
        await asyncio.sleep(0)
        if gate := self.gates.get(adapter_id):
            await gate.wait()
        if adapter_id in self.refuse:
            raise ValueError(f"{adapter_id} refused")
        assert int_id not in self.inside
        assert adapter_id not in self.inside.values()
        self.inside[int_id] = adapter_id
        assert len(self.inside) <= self.slots

    async def unload(self, int_id: int) -> None:
        del self.inside[int_id]
        await asyncio.sleep(0)


class Harness:
    """A registry on a fake engine, with helpers."""

    def __init__(self, slots: int) -> None:
        self.engine = FakeEngine(slots)
        self.registry: AdapterRegistry[str] = AdapterRegistry(slots, self.engine.load, self.engine.unload)

    async def use(self, adapter_id: str, until: asyncio.Event | None = None) -> int:
        async with self.registry.lease(adapter_id, f"weights of {adapter_id}") as entry:
            assert self.engine.inside[entry.int_id] == adapter_id
            if until:
                await until.wait()
            assert self.engine.inside[entry.int_id] == adapter_id
            return entry.int_id

    def start(self, adapter_id: str, until: asyncio.Event | None = None) -> asyncio.Task[int]:
        return asyncio.create_task(self.use(adapter_id, until))


async def run_pending_tasks(condition: Callable[[], bool] | None = None) -> None:
    """Let every task run until it waits."""
    for _ in range(50):
        await asyncio.sleep(0)
    assert condition is None or condition()


async def rejected(work: Awaitable[object]) -> str:
    with pytest.raises(ValueError) as error:
        await work
    return str(error.value)


async def test_concurrent_leases_load_an_adapter_once() -> None:
    harness = Harness(2)
    ids = await asyncio.gather(*(harness.use("a") for _ in range(20)))
    assert harness.engine.loads == ["a"]
    assert len(set(ids)) == 1


async def test_lease_on_resident_adapter_loads_nothing() -> None:
    harness = Harness(1)
    await harness.use("a")
    await harness.use("a")
    assert harness.engine.loads == ["a"]


async def test_least_recently_leased_idle_adapter_is_evicted() -> None:
    harness = Harness(2)
    for adapter in ("a", "b", "a", "c"):
        await harness.use(adapter)
    assert sorted(harness.engine.inside.values()) == ["a", "c"]
    assert harness.registry.resident == 2


async def test_leased_adapter_is_not_evicted_and_new_one_waits() -> None:
    harness, done = Harness(1), asyncio.Event()
    busy = harness.start("a", done)
    await run_pending_tasks()
    waiting = harness.start("b")
    await run_pending_tasks(lambda: not waiting.done())
    assert harness.registry.waiting == 1
    done.set()
    await asyncio.gather(busy, waiting)
    assert list(harness.engine.inside.values()) == ["b"]


async def test_waiting_adapters_get_slots_in_order() -> None:
    harness, done = Harness(1), asyncio.Event()
    tasks = [harness.start("first", done)]
    await run_pending_tasks()
    for adapter in ("b", "c", "d"):
        tasks.append(harness.start(adapter))
        await run_pending_tasks()
    done.set()
    await asyncio.gather(*tasks)
    assert harness.engine.loads == ["first", "b", "c", "d"]


async def test_popular_adapters_do_not_starve_a_waiting_one() -> None:
    """Two adapters with endlessly overlapping leases are never idle at the same time."""
    harness = Harness(2)
    stop = asyncio.Event()

    async def popular(adapter: str) -> None:
        while not stop.is_set():
            turn = asyncio.Event()
            held = harness.start(adapter, turn)
            await run_pending_tasks()
            following = harness.start(adapter, turn)
            await run_pending_tasks()
            turn.set()
            await asyncio.gather(held, following)

    crowd = [asyncio.create_task(popular(a)) for a in ("a", "a", "b", "b")]
    await run_pending_tasks()
    await asyncio.wait_for(harness.use("c"), timeout=10)
    stop.set()
    await asyncio.gather(*crowd)


async def test_reservation_ends_when_no_adapter_waits() -> None:
    harness, done = Harness(1), asyncio.Event()
    busy = harness.start("a", done)
    await run_pending_tasks()
    waiting = harness.start("b")
    await run_pending_tasks()
    joiner = harness.start("a")  # blocked: the slot of a is reserved for b
    await run_pending_tasks(lambda: not joiner.done())
    waiting.cancel()
    await run_pending_tasks(joiner.done)
    done.set()
    await busy
    assert harness.engine.loads == ["a"]


async def test_cancelled_waiter_leaves_others_unaffected() -> None:
    harness = Harness(1)
    harness.engine.gates["a"] = asyncio.Event()
    first, second = harness.start("a"), harness.start("a")
    await run_pending_tasks()
    first.cancel()
    await run_pending_tasks(first.cancelled)
    harness.engine.gates["a"].set()
    await second
    assert harness.engine.loads == ["a"]
    assert harness.registry.in_flight == 0


async def test_adapter_without_waiters_is_not_loaded() -> None:
    harness, done = Harness(1), asyncio.Event()
    busy = harness.start("a", done)
    await run_pending_tasks()
    waiting = harness.start("b")
    await run_pending_tasks()
    waiting.cancel()
    done.set()
    await busy
    await run_pending_tasks()
    assert harness.engine.loads == ["a"]
    assert harness.registry.waiting == 0


async def test_failed_load_reaches_every_waiter_and_can_be_repeated() -> None:
    harness = Harness(1)
    harness.engine.refuse.add("a")
    errors = await asyncio.gather(*(rejected(harness.use("a")) for _ in range(3)))
    assert errors == ["a refused"] * 3
    assert harness.registry.resident == 0
    harness.engine.refuse.clear()
    await harness.use("a")
    assert harness.engine.loads == ["a", "a"]


async def test_failed_load_frees_its_slot_for_the_next_waiter() -> None:
    harness = Harness(1)
    await harness.use("old")
    harness.engine.refuse.add("a")
    error, _ = await asyncio.gather(rejected(harness.use("a")), harness.use("b"))
    assert error == "a refused"
    assert list(harness.engine.inside.values()) == ["b"]


async def test_integer_ids_of_registered_adapters_never_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "MAX_ID", 3)
    harness, done = Harness(2), asyncio.Event()
    busy = harness.start("a", done)
    await run_pending_tasks()
    others = [await harness.use(adapter) for adapter in "bcdbcd"]
    done.set()
    assert await busy == 1
    assert set(others) == {2, 3}


async def test_idle_adapter_is_evicted_at_once() -> None:
    harness = Harness(2)
    await harness.use("a")
    await harness.registry.evict("a")
    await harness.registry.evict("unknown")
    assert harness.engine.inside == {}
    await harness.use("a")
    assert harness.engine.loads == ["a", "a"]


async def test_leased_adapter_is_evicted_when_its_last_lease_ends() -> None:
    harness, done = Harness(2), asyncio.Event()
    busy = harness.start("a", done)
    await run_pending_tasks()
    await harness.registry.evict("a")
    assert list(harness.engine.inside.values()) == ["a"]
    done.set()
    await busy
    await run_pending_tasks()
    assert harness.engine.inside == {}


async def test_retained_adapter_outlasts_its_lease() -> None:
    harness = Harness(1)
    async with harness.registry.lease("a", "weights of a") as entry:
        held = harness.registry.retain(entry)
        held.__enter__()
    waiting = harness.start("b")
    await run_pending_tasks(lambda: not waiting.done())
    held.__exit__(None, None, None)
    await waiting


async def test_retaining_after_the_lease_is_an_error() -> None:
    harness = Harness(1)
    async with harness.registry.lease("a", "weights of a") as entry:
        pass
    with pytest.raises(RuntimeError, match="lease on adapter a has ended"), harness.registry.retain(entry):
        pass


async def test_failure_reaches_all_present_and_later_callers() -> None:
    harness, done = Harness(1), asyncio.Event()
    busy = harness.start("a", done)
    await run_pending_tasks()
    waiting = harness.start("b")
    await run_pending_tasks()
    joiner = harness.start("a")
    await run_pending_tasks()
    harness.registry.fail(lambda: ValueError("dead"))
    assert await rejected(waiting) == "dead"
    assert await rejected(joiner) == "dead"
    assert await rejected(harness.use("c")) == "dead"
    done.set()
    await busy


STEP = st.tuples(st.sampled_from("abcde"), st.sampled_from(["use", "cancel", "evict", "refuse", "tick"]))


@settings(max_examples=150, deadline=None)
@given(slots=st.integers(1, 3), steps=st.lists(STEP, max_size=40))
def test_random_traffic_neither_overfills_nor_loses_a_slot(slots: int, steps: list[tuple[str, str]]) -> None:
    """The fake engine is never overfilled, every caller is served or gets an error,
    no slot is lost.
    """

    async def scenario() -> None:
        harness, done = Harness(slots), asyncio.Event()
        tasks: list[tuple[str, asyncio.Task[int]]] = []
        for adapter, action in steps:
            if action == "use":
                tasks.append((adapter, harness.start(adapter, None if len(tasks) % 3 else done)))
            elif action == "cancel":
                for task in (task for name, task in tasks if name == adapter):
                    task.cancel()
            elif action == "evict":
                await harness.registry.evict(adapter)
            elif action == "refuse":
                harness.engine.refuse ^= {adapter}
            else:
                await asyncio.sleep(0)
        done.set()
        harness.engine.refuse.clear()
        await asyncio.wait_for(asyncio.gather(*(task for _, task in tasks), return_exceptions=True), 5)
        await run_pending_tasks()
        for _, task in tasks:
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), ValueError)
        assert harness.registry.in_flight == harness.registry.waiting == 0
        assert harness.registry.resident == len(harness.engine.inside)
        await asyncio.wait_for(asyncio.gather(*(harness.use(f"new {i}") for i in range(slots + 2))), 5)
        assert len(harness.engine.inside) == slots

    asyncio.run(scenario())
