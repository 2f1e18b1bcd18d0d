"""The end of an engine: stopped or killed, busy or idle. Each test has an engine of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from server.engine.config import EngineConfig
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine
from server.errors import EngineDeadError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

PATIENCE_S = 60
"""Seconds after which a test counts as hung. Generous, because other tests may occupy the cores."""


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_engine(engine_config: EngineConfig) -> AsyncIterator[VllmEngine]:
    from dataclasses import replace

    engine = VllmEngine(replace(engine_config, max_loras=1, max_model_len=512))
    await engine.start()
    yield engine
    await engine.stop()


def processes(engine: VllmEngine) -> list[psutil.Process]:
    """The core and its child processes."""
    cores = [psutil.Process(core.pid) for core in engine._llm.engine_core.resources.engine_manager.processes]
    return [process for core in cores for process in (core, *core.children(recursive=True))]


async def work(engine: VllmEngine, make_adapter: Any, begun: asyncio.Event) -> list[asyncio.Task[Any]]:
    """Start a base and an adapted generation, and a lease that waits for the only slot."""

    async def generate(lease: Any) -> None:
        async for _ in engine.generate([1, 2, 3], Sampling(max_tokens=500), lease, "fresh_engine"):
            begun.set()

    async def adapted(adapter_id: str, seed: int) -> None:
        async with engine.lease(adapter_id, make_adapter(seed)) as lease:
            await generate(lease)

    tasks = [asyncio.create_task(generate(None)), asyncio.create_task(adapted("a", 1))]
    await begun.wait()
    return [*tasks, asyncio.create_task(adapted("b", 2))]


async def assert_all_fail(tasks: list[asyncio.Task[Any]]) -> None:
    done, pending = await asyncio.wait(tasks, timeout=PATIENCE_S)
    assert not pending
    assert [type(task.exception()) for task in done] == [EngineDeadError] * len(tasks)


async def test_death_of_a_busy_core_reaches_every_caller(fresh_engine: VllmEngine, make_adapter: Any) -> None:
    tasks = await work(fresh_engine, make_adapter, asyncio.Event())
    everything = processes(fresh_engine)
    os.kill(everything[0].pid, signal.SIGKILL)
    await assert_all_fail(tasks)
    assert fresh_engine.dead == "the engine's core process has died"
    with pytest.raises(EngineDeadError):
        async with fresh_engine.lease("c", make_adapter(3)):
            pass
    with pytest.raises(EngineDeadError):
        await anext(fresh_engine.generate([1], Sampling(max_tokens=1), None, "late"))
    await fresh_engine.stop()
    assert not psutil.wait_procs(everything, timeout=PATIENCE_S)[1]


async def test_death_of_an_idle_core_is_detected(fresh_engine: VllmEngine) -> None:
    os.kill(processes(fresh_engine)[0].pid, signal.SIGKILL)
    await asyncio.wait_for(fresh_engine._death.wait(), timeout=PATIENCE_S)
    assert fresh_engine.dead == "the engine's core process has died"


async def test_stop_ends_every_process_and_every_call(fresh_engine: VllmEngine, make_adapter: Any) -> None:
    tasks = await work(fresh_engine, make_adapter, asyncio.Event())
    everything = processes(fresh_engine)
    async with asyncio.timeout(PATIENCE_S):
        await fresh_engine.stop()
    await assert_all_fail(tasks)
    assert not psutil.wait_procs(everything, timeout=PATIENCE_S)[1]
    assert fresh_engine.dead == "the engine was stopped"


async def test_stop_during_start_ends_the_child_process(engine_config: EngineConfig) -> None:
    before = set(psutil.Process().children())
    engine = VllmEngine(engine_config)
    loading = asyncio.create_task(engine.start())
    core: list[psutil.Process] = []
    while not core:  # the core sets its name when it starts to load
        assert not loading.done()
        await asyncio.sleep(0.01)
        core = [p for p in set(psutil.Process().children()) - before if p.name().startswith("VLLM")]
    await engine.stop()
    with pytest.raises(RuntimeError):
        await loading
    assert engine.dead == "the engine was stopped" and engine._llm is None
    assert not psutil.wait_procs(core, timeout=PATIENCE_S)[1]
