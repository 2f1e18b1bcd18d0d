"""Fixtures of unit and integration tests that start the app with fakes on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from server.app import Models, create_app
from server.settings import Settings
from server.uvicorn_server import Server
from tests.support.server_fakes import FakeEngine, FakeGenerator, eventually


@dataclass
class Running:
    """A server with fakes on a real port, in this event loop."""

    http: httpx.AsyncClient
    engine: FakeEngine
    generator: FakeGenerator
    server: Server
    app: Any
    done: asyncio.Task[None]

    async def metrics(self) -> dict[str, float]:
        text = (await self.http.get("/metrics")).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}


Launch = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def launch() -> Launch:
    @asynccontextmanager
    async def start(
        *,
        engine: FakeEngine | None = None,
        generator: FakeGenerator | None = None,
        wait: bool = True,
        **settings: Any,
    ) -> AsyncIterator[Running]:
        engine, generator = engine or FakeEngine(), generator or FakeGenerator()

        async def load(_: Settings) -> Models:
            return Models(generator, engine)

        chosen = Settings(port=0, **settings)
        app = create_app(chosen, load)
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = Server(config, app.state.lifecycle, chosen.drain_timeout_s)
        done = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        sockets = server.servers[0].sockets  # none if it has closed again already
        port = sockets[0].getsockname()[1] if sockets else 0
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            if wait:
                await eventually(lambda: app.state.lifecycle.phase == "ready")
            yield Running(http, engine, generator, server, app, done)
        generator.gate.set()
        engine.gate.set()
        engine.ready.set()
        server.should_exit = True
        await asyncio.wait_for(done, 10)

    return start


@pytest.fixture
async def running(launch: Launch) -> AsyncIterator[Running]:
    async with launch() as server:
        yield server
