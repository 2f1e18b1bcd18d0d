"""A server in its own process, with the real engine, encoder and hypernetwork."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

START_S = 180


class ServerProcess:
    """One server process."""

    def __init__(self, checkpoint: Path, redis_url: str, log: Path) -> None:
        self.log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("T2L_")}
        environment |= {
            "T2L_PORT": "0",
            "T2L_CHECKPOINT": str(checkpoint),
            "T2L_REDIS_URL": redis_url,
            "T2L_REDIS_TIMEOUT_S": "3",  # two servers share the machine's cores with other processes
            "T2L_MAX_MODEL_LEN": "512",
            "T2L_KV_CACHE_BYTES": str(256 * 2**20),
            # In bf16, batches of other sizes round differently, which changes near ties between
            # tokens.
            "T2L_DTYPE": "float32",
            "T2L_LOG_FORMAT": "json",
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "serve"],
                env=environment,
                stderr=file,
                stdout=file,
                start_new_session=True,  # its own process group, as in a shell
            )
        self.url = self._url()

    def _url(self) -> str:
        found: re.Match[str] | None = None
        deadline = time.monotonic() + 60
        while found is None:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            found = re.search(r'"url": "([^"]+)"', self.log.read_text())
            time.sleep(0.05)
        return found[1]

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        with httpx.Client(base_url=self.url) as http:
            while http.get("/ready", timeout=10).status_code != 200:
                assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
