"""The systems under test: our server, vLLM's server, and an engine in this process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

import httpx

from hypernet.generator import Generator
from hypernet.hardware import fastest_dtype
from hypernet.lora import LoraWeights
from hypernet.model_paths import DEFAULT_CHECKPOINT, base_model_folder
from hypernet.peft_io import save_adapter
from server.app import engine_config
from server.engine.config import EngineConfig
from server.engine.vllm import VllmEngine
from server.settings import Settings

NUM_ADAPTERS = 8
START_TIMEOUT_S = 240
NEGLIGIBLE_ALPHA = 1e-4
"""LoRA alpha of the measured adapters. They cost as much as others, but the completions are those
of the base model and therefore equally long."""


class BenchContext:
    """Models and servers that all cases share. Each is started on first use, once.

    Attributes:
        rounds: number of rounds of each case.
        quick: run shorter cases.
        folder: a temporary folder. Set when the context is entered.
    """

    def __init__(self, *, rounds: int, quick: bool) -> None:
        self.rounds = rounds
        self.quick = quick
        # The environment of a user's shell, without settings and without this process's OpenMP
        # variables.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("T2L_", "OMP_", "GOMP_"))}
        self._open = AsyncExitStack()
        self._started: dict[str, asyncio.Task[httpx.AsyncClient]] = {}
        self._engine: VllmEngine | None = None

    async def __aenter__(self) -> Self:
        self.folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @cached_property
    def checkpoint(self) -> Path:
        """The shipped checkpoint with a negligible LoRA scale."""
        folder = self.folder / "checkpoint"
        shutil.copytree(DEFAULT_CHECKPOINT, folder)
        config = json.loads((folder / "config.json").read_text())
        config["hypernet"]["lora"]["alpha"] = NEGLIGIBLE_ALPHA
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    @cached_property
    def generator(self) -> Generator:
        """The hypernetwork and its encoder in this process, configured as in the server."""
        return Generator.load(self.checkpoint, dtype=fastest_dtype("cpu"))

    @cached_property
    def adapters(self) -> list[LoraWeights]:
        """One adapter for each description of the streams."""
        return self.generator.generate(descriptions(NUM_ADAPTERS, "stream"))

    @cached_property
    def config(self) -> EngineConfig:
        """Engine configuration, the same for all systems."""
        model = str(base_model_folder())
        return engine_config(Settings(), model=model, model_name="base", lora=self.generator.spec)

    async def start_all(self) -> tuple[httpx.AsyncClient, httpx.AsyncClient, VllmEngine]:
        """Start our server, vLLM's server and the engine at the same time."""
        return await asyncio.gather(self.t2l_server(), self.vllm_server(), self.engine())

    async def engine(self) -> VllmEngine:
        """Our engine in this process, without a server."""
        if self._engine is None:
            self._engine = VllmEngine(self.config)
            self._open.push_async_callback(self._engine.stop)
            await self._engine.start()
        return self._engine

    async def t2l_server(self) -> httpx.AsyncClient:
        """A client of our server, started by `t2l serve`."""
        port = free_port()
        environment = {"T2L_PORT": str(port), "T2L_CHECKPOINT": str(self.checkpoint), "T2L_LOG_LEVEL": "ERROR"}
        command = [sys.executable, "-m", "server.cli", "serve"]
        return await self._start_server("t2l", command, environment, port, "/ready")

    async def vllm_server(self) -> httpx.AsyncClient:
        """A client of vLLM's own server: same version, arguments and environment, without our
        plugin.

        The environment includes our OpenMP variables. Without them an idle server keeps a core
        busy, and nothing could be measured beside it.
        """
        port = free_port()
        environment = self.config.environment(cpu=True, cores=len(os.sched_getaffinity(0)))
        environment |= {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        return await self._start_server("vllm", vllm_command(self.config, port), environment, port, "/health")

    def save_adapter_folder(self, name: str, weights: LoraWeights) -> Path:
        """Save an adapter as a PEFT folder."""
        folder = self.folder / "adapters" / name
        save_adapter(folder, weights, "base")
        return folder

    async def _start_server(
        self, name: str, command: list[str], environment: dict[str, str], port: int, ready: str
    ) -> httpx.AsyncClient:
        if name not in self._started:
            serving = self._open.enter_async_context(
                server_process(name, command, self._environment | environment, port, ready)
            )
            self._started[name] = asyncio.create_task(serving)
        return await self._started[name]


def vllm_command(config: EngineConfig, port: int) -> list[str]:
    """The command line of vLLM's own server with our engine's arguments."""
    arguments = config.engine_arguments() | {"dtype": config.resolved_dtype(cpu_capabilities())}
    t2l_only = {"worker_extension_cls", "use_tqdm_on_load"}
    flags: list[str] = []
    for name, value in arguments.items():
        if name in t2l_only:
            continue
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        flags += [flag] if value is True else [flag, *map(str, values)]
    module = "vllm.entrypoints.openai.api_server"
    return [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *flags]


def cpu_capabilities() -> dict[str, object]:
    """Capabilities of this CPU, in torch's names."""
    import torch

    return dict(torch.cpu.get_capabilities())


def start_process(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to a file."""
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)


@asynccontextmanager
async def server_process(
    name: str, command: list[str], environment: dict[str, str], port: int, ready: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a server process until the context ends. Its log is runs/bench-NAME.log."""
    log = Path(f"runs/bench-{name}.log")
    log.parent.mkdir(exist_ok=True)
    server = start_process(command, environment, log)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=128)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
            await wait_until_ready(http, server, ready, log)
            yield http
    finally:
        server.terminate()
        try:
            await asyncio.to_thread(server.wait, 30)
        except subprocess.TimeoutExpired:
            server.kill()


async def wait_until_ready(
    http: httpx.AsyncClient, server: subprocess.Popen[bytes], path: str, log: Path
) -> None:
    """Poll a path until it returns 200."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if (await http.get(path)).status_code == 200:
                return
        except httpx.TransportError:
            pass  # the port is not open yet
        await asyncio.sleep(0.25)
    raise SystemExit(f"a server did not start within {START_TIMEOUT_S} s. Its log is {log}")


def descriptions(count: int, name: str) -> list[str]:
    """Task descriptions that differ from those of any other name."""
    return [f"Answer with the word that comes {n} places later in the alphabet ({name})." for n in range(count)]


def free_port() -> int:
    """A free TCP port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
