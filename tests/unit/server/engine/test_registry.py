"""The registry's promises, on an engine of two callables that watches for what must never happen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine import registry as registry_module
from server.engine.registry import AdapterRegistry


class FakeEngine:
    """Slots as vLLM has them: overfilling one, or taking out what is not in, is the end of the test."""

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


class Room:
    """A registry on a fake engine, and shorthands for using it."""

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


async def settle(condition: Callable[[], bool] | None = None) -> None:
    """Let every task run as far as it can."""
    for _ in range(50):
        await asyncio.sleep(0)
    assert condition is None or condition()


async def rejected(work: Awaitable[object]) -> str:
    with pytest.raises(ValueError) as error:
        await work
    return str(error.value)


async def test_an_adapter_is_loaded_once_for_all_who_want_it() -> None:
    room = Room(2)
    ids = await asyncio.gather(*(room.use("a") for _ in range(20)))
    assert room.engine.loads == ["a"]
    assert len(set(ids)) == 1


async def test_a_second_lease_on_a_resident_adapter_costs_nothing() -> None:
    room = Room(1)
    await room.use("a")
    await room.use("a")
    assert room.engine.loads == ["a"]


async def test_the_least_recently_leased_idle_adapter_leaves() -> None:
    room = Room(2)
    for adapter in ("a", "b", "a", "c"):
        await room.use(adapter)
    assert sorted(room.engine.inside.values()) == ["a", "c"]
    assert room.registry.resident == 2


async def test_an_adapter_in_flight_stays_and_the_newcomer_waits() -> None:
    room, done = Room(1), asyncio.Event()
    busy = room.start("a", done)
    await settle()
    newcomer = room.start("b")
    await settle(lambda: not newcomer.done())
    assert room.registry.waiting == 1
    done.set()
    await asyncio.gather(busy, newcomer)
    assert list(room.engine.inside.values()) == ["b"]


async def test_newcomers_get_slots_in_order() -> None:
    room, done = Room(1), asyncio.Event()
    tasks = [room.start("first", done)]
    await settle()
    for adapter in ("b", "c", "d"):
        tasks.append(room.start(adapter))
        await settle()
    done.set()
    await asyncio.gather(*tasks)
    assert room.engine.loads == ["first", "b", "c", "d"]


async def test_popular_adapters_cannot_keep_a_newcomer_out() -> None:
    """Two adapters whose leases overlap without end would never be idle at once."""
    room = Room(2)
    stop = asyncio.Event()

    async def popular(adapter: str) -> None:
        while not stop.is_set():
            turn = asyncio.Event()
            held = room.start(adapter, turn)
            await settle()
            following = room.start(adapter, turn)
            await settle()
            turn.set()
            await asyncio.gather(held, following)

    crowd = [asyncio.create_task(popular(a)) for a in ("a", "a", "b", "b")]
    await settle()
    await asyncio.wait_for(room.use("c"), timeout=10)
    stop.set()
    await asyncio.gather(*crowd)


async def test_a_promise_is_taken_back_when_nobody_waits_any_more() -> None:
    room, done = Room(1), asyncio.Event()
    busy = room.start("a", done)
    await settle()
    newcomer = room.start("b")
    await settle()
    joiner = room.start("a")  # held back: the slot of a is promised to b
    await settle(lambda: not joiner.done())
    newcomer.cancel()
    await settle(joiner.done)
    done.set()
    await busy
    assert room.engine.loads == ["a"]


async def test_a_cancelled_waiter_harms_nobody() -> None:
    room = Room(1)
    room.engine.gates["a"] = asyncio.Event()
    first, second = room.start("a"), room.start("a")
    await settle()
    first.cancel()
    await settle(first.cancelled)
    room.engine.gates["a"].set()
    await second
    assert room.engine.loads == ["a"]
    assert room.registry.in_flight == 0


async def test_an_adapter_nobody_waits_for_any_more_is_not_loaded() -> None:
    room, done = Room(1), asyncio.Event()
    busy = room.start("a", done)
    await settle()
    newcomer = room.start("b")
    await settle()
    newcomer.cancel()
    done.set()
    await busy
    await settle()
    assert room.engine.loads == ["a"]
    assert room.registry.waiting == 0


async def test_a_failed_load_reaches_every_waiter_and_leaves_nothing() -> None:
    room = Room(1)
    room.engine.refuse.add("a")
    errors = await asyncio.gather(*(rejected(room.use("a")) for _ in range(3)))
    assert errors == ["a refused"] * 3
    assert room.registry.resident == 0
    room.engine.refuse.clear()
    await room.use("a")
    assert room.engine.loads == ["a", "a"]


async def test_a_failed_load_frees_its_slot_for_the_next_in_line() -> None:
    room = Room(1)
    await room.use("old")
    room.engine.refuse.add("a")
    error, _ = await asyncio.gather(rejected(room.use("a")), room.use("b"))
    assert error == "a refused"
    assert list(room.engine.inside.values()) == ["b"]


async def test_integer_ids_are_new_each_time_and_never_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "MAX_ID", 3)
    room, done = Room(2), asyncio.Event()
    busy = room.start("a", done)
    await settle()
    others = [await room.use(adapter) for adapter in "bcdbcd"]
    done.set()
    assert await busy == 1
    assert set(others) == {2, 3}


async def test_idle_adapter_is_evicted_at_once() -> None:
    room = Room(2)
    await room.use("a")
    await room.registry.evict("a")
    await room.registry.evict("unknown")
    assert room.engine.inside == {}
    await room.use("a")
    assert room.engine.loads == ["a", "a"]


async def test_leased_adapter_is_evicted_when_its_last_lease_ends() -> None:
    room, done = Room(2), asyncio.Event()
    busy = room.start("a", done)
    await settle()
    await room.registry.evict("a")
    assert list(room.engine.inside.values()) == ["a"]
    done.set()
    await busy
    await settle()
    assert room.engine.inside == {}


async def test_a_generation_holds_its_adapter_beyond_the_lease() -> None:
    room = Room(1)
    async with room.registry.lease("a", "weights of a") as entry:
        held = room.registry.retain(entry)
        held.__enter__()
    newcomer = room.start("b")
    await settle(lambda: not newcomer.done())
    held.__exit__(None, None, None)
    await newcomer


async def test_holding_after_the_lease_is_a_mistake() -> None:
    room = Room(1)
    async with room.registry.lease("a", "weights of a") as entry:
        pass
    with pytest.raises(RuntimeError, match="lease on adapter a has ended"), room.registry.retain(entry):
        pass


async def test_death_reaches_everybody() -> None:
    room, done = Room(1), asyncio.Event()
    busy = room.start("a", done)
    await settle()
    newcomer = room.start("b")
    await settle()
    joiner = room.start("a")
    await settle()
    room.registry.fail(lambda: ValueError("dead"))
    assert await rejected(newcomer) == "dead"
    assert await rejected(joiner) == "dead"
    assert await rejected(room.use("c")) == "dead"
    done.set()
    await busy


STEP = st.tuples(st.sampled_from("abcde"), st.sampled_from(["use", "cancel", "evict", "refuse", "tick"]))


@settings(max_examples=150, deadline=None)
@given(slots=st.integers(1, 3), steps=st.lists(STEP, max_size=40))
def test_whatever_happens_the_books_balance(slots: int, steps: list[tuple[str, str]]) -> None:
    """Random traffic: the fake engine is never overfilled, everybody is served or told, no slot is lost."""

    async def scenario() -> None:
        room, done = Room(slots), asyncio.Event()
        tasks: list[tuple[str, asyncio.Task[int]]] = []
        for adapter, action in steps:
            if action == "use":
                tasks.append((adapter, room.start(adapter, None if len(tasks) % 3 else done)))
            elif action == "cancel":
                for task in (task for name, task in tasks if name == adapter):
                    task.cancel()
            elif action == "evict":
                await room.registry.evict(adapter)
            elif action == "refuse":
                room.engine.refuse ^= {adapter}
            else:
                await asyncio.sleep(0)
        done.set()
        room.engine.refuse.clear()
        await asyncio.wait_for(asyncio.gather(*(task for _, task in tasks), return_exceptions=True), 5)
        await settle()
        for _, task in tasks:
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), ValueError)
        assert room.registry.in_flight == room.registry.waiting == 0
        assert room.registry.resident == len(room.engine.inside)
        await asyncio.wait_for(asyncio.gather(*(room.use(f"new {i}") for i in range(slots + 2))), 5)
        assert len(room.engine.inside) == slots

    asyncio.run(scenario())
