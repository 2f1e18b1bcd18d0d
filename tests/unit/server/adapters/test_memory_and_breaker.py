from hypothesis import given
from hypothesis import strategies as st

from server.adapters.breaker import CircuitBreaker
from server.adapters.memory import MemoryStore
from tests.support.server_fakes import adapter_for

A, B, C = (adapter_for(text) for text in "abc")


def test_least_recently_used_adapter_is_evicted():
    store = MemoryStore(2 * A.nbytes)
    store.put(A)
    store.put(B)
    assert store.get(A.id) is A
    store.put(C)
    assert store.get(B.id) is None
    assert {a.id for a in store} == {A.id, C.id}


def test_adapter_larger_than_the_store_is_not_cached():
    store = MemoryStore(A.nbytes - 1)
    store.put(A)
    assert len(store) == 0


def test_remove_returns_whether_the_adapter_was_cached():
    store = MemoryStore(A.nbytes)
    store.put(A)
    assert store.remove(A.id)
    assert not store.remove(A.id)
    assert store.nbytes == 0


@given(st.lists(st.tuples(st.sampled_from("pgr"), st.sampled_from([A, B, C]))), st.integers(0, 3))
def test_byte_count_matches_the_contents_and_is_bounded(steps, room):
    store = MemoryStore(room * A.nbytes)
    act = {"p": store.put, "g": lambda a: store.get(a.id), "r": lambda a: store.remove(a.id)}
    for step, adapter in steps:
        act[step](adapter)
        assert store.nbytes == sum(a.nbytes for a in store) <= room * A.nbytes


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_breaker_opens_after_consecutive_failures_and_closes_after_a_probe():
    clock = Clock()
    breaker = CircuitBreaker(failures=2, cooldown_s=5, clock=clock)
    breaker.failed()
    assert not breaker.healthy
    breaker.succeeded()
    breaker.failed()
    assert breaker.allow()  # not consecutive
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allow()
    clock.now = 5
    assert breaker.allow()  # the probe
    assert not breaker.allow()  # only one per cooldown
    breaker.failed()
    clock.now = 9
    assert not breaker.allow()
    clock.now = 10
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.allow()
    assert breaker.healthy
