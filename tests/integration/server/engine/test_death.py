"""How an engine ends: told to, or killed, at work or idle. Each test has its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
import pytest_asyncio

from server.engine.config import EngineConfig
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine
from server.errors import EngineDeadError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def doomed(engine_config: EngineConfig) -> AsyncIterator[VllmEngine]:
    from dataclasses import replace

    engine = VllmEngine(replace(engine_config, max_loras=1, max_model_len=512))
    await engine.start()
    yield engine
    await engine.stop()


def processes(engine: VllmEngine) -> list[psutil.Process]:
    """The core and everything below it."""
    cores = [psutil.Process(core.pid) for core in engine._llm.engine_core.resources.engine_manager.processes]
    return [process for core in cores for process in (core, *core.children(recursive=True))]


async def work(engine: VllmEngine, make_adapter: Any, begun: asyncio.Event) -> list[asyncio.Task[Any]]:
    """Base and adapted generations, and a lease that waits for the one slot."""

    async def generate(lease: Any) -> None:
        async for _ in engine.generate([1, 2, 3], Sampling(max_tokens=500), lease, "doomed"):
            begun.set()

    async def adapted(adapter_id: str, seed: int) -> None:
        async with engine.lease(adapter_id, make_adapter(seed)) as lease:
            await generate(lease)

    tasks = [asyncio.create_task(generate(None)), asyncio.create_task(adapted("a", 1))]
    await begun.wait()
    return [*tasks, asyncio.create_task(adapted("b", 2))]


async def everybody_hears(tasks: list[asyncio.Task[Any]]) -> None:
    done, pending = await asyncio.wait(tasks, timeout=15)
    assert not pending
    assert [type(task.exception()) for task in done] == [EngineDeadError] * len(tasks)


async def test_killing_the_core_at_work_reaches_every_waiter(doomed: VllmEngine, make_adapter: Any) -> None:
    tasks = await work(doomed, make_adapter, asyncio.Event())
    everything = processes(doomed)
    os.kill(everything[0].pid, signal.SIGKILL)
    await everybody_hears(tasks)
    assert doomed.dead == "the engine's core process has died"
    with pytest.raises(EngineDeadError):
        async with doomed.lease("c", make_adapter(3)):
            pass
    with pytest.raises(EngineDeadError):
        await anext(doomed.generate([1], Sampling(max_tokens=1), None, "late"))
    await doomed.stop()
    assert not psutil.wait_procs(everything, timeout=10)[1]


async def test_killing_an_idle_core_is_noticed(doomed: VllmEngine) -> None:
    os.kill(processes(doomed)[0].pid, signal.SIGKILL)
    await asyncio.wait_for(doomed._death.wait(), timeout=10)
    assert doomed.dead == "the engine's core process has died"


async def test_stopping_ends_every_process_and_every_wait(doomed: VllmEngine, make_adapter: Any) -> None:
    tasks = await work(doomed, make_adapter, asyncio.Event())
    everything = processes(doomed)
    async with asyncio.timeout(15):
        await doomed.stop()
    await everybody_hears(tasks)
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            assert process.status() == psutil.STATUS_ZOMBIE
    assert doomed.dead == "the engine was stopped"


async def test_stopping_while_it_loads_ends_the_load(engine_config: EngineConfig) -> None:
    before = set(psutil.Process().children())
    engine = VllmEngine(engine_config)
    loading = asyncio.create_task(engine.start())
    core: list[psutil.Process] = []
    while not core:  # it takes its name when it takes signals, and starts to build the engine
        assert not loading.done()
        await asyncio.sleep(0.01)
        core = [p for p in set(psutil.Process().children()) - before if p.name().startswith("VLLM")]
    await engine.stop()
    with pytest.raises(RuntimeError):
        await loading
    assert engine.dead == "the engine was stopped" and engine._llm is None
    assert not psutil.wait_procs(core, timeout=10)[1]
