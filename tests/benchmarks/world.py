"""What the parts measure: our server, stock vLLM, an engine in this process. Started on first use."""

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

ADAPTERS = 8
START_S = 240
FAINT = 1e-4
"""Scale of the adapters that are measured: all the work of real ones, but the streams say what the base
model says and so are as long."""


class World:
    """Everything that costs a start, made once and shared by the parts.

    Attributes:
        rounds: how often the parts repeat.
        quick: shorter parts, for a look.
    """

    def __init__(self, *, rounds: int, quick: bool) -> None:
        self.rounds = rounds
        self.quick = quick
        # As a user's shell would have it: neither settings nor what this process gave itself.
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
        """The shipped hypernetwork with its adapters' scale made faint."""
        folder = self.folder / "checkpoint"
        shutil.copytree(DEFAULT_CHECKPOINT, folder)
        config = json.loads((folder / "config.json").read_text())
        config["hypernet"]["lora"]["alpha"] = FAINT
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    @cached_property
    def generator(self) -> Generator:
        """The hypernetwork and its encoder, in this process, as the server has them."""
        return Generator.load(self.checkpoint, dtype=fastest_dtype("cpu"))

    @cached_property
    def adapters(self) -> list[LoraWeights]:
        """One adapter for each of the streams' descriptions."""
        return self.generator.generate(descriptions(ADAPTERS, "stream"))

    @cached_property
    def config(self) -> EngineConfig:
        """The engine, the same for all three."""
        model = str(base_model_folder())
        return engine_config(Settings(), model=model, model_name="base", lora=self.generator.spec)

    async def all_three(self) -> tuple[httpx.AsyncClient, httpx.AsyncClient, VllmEngine]:
        """Our server, stock vLLM and the engine, started beside one another."""
        return await asyncio.gather(self.ours(), self.stock(), self.engine())

    async def engine(self) -> VllmEngine:
        """Our engine without a server around it."""
        if self._engine is None:
            self._engine = VllmEngine(self.config)
            self._open.push_async_callback(self._engine.stop)
            await self._engine.start()
        return self._engine

    async def ours(self) -> httpx.AsyncClient:
        """Our server, as `t2l serve` starts it."""
        port = free_port()
        environment = {"T2L_PORT": str(port), "T2L_CHECKPOINT": str(self.checkpoint), "T2L_LOG_LEVEL": "ERROR"}
        command = [sys.executable, "-m", "server.cli", "serve"]
        return await self._serving("ours", command, environment, port, "/ready")

    async def stock(self) -> httpx.AsyncClient:
        """vLLM's own server: same version, same flags and environment, none of our plugin.

        As it comes, it keeps a core busy while nobody asks it anything: nothing could be measured beside it.
        """
        port = free_port()
        environment = self.config.environment(cpu=True, cores=len(os.sched_getaffinity(0)))
        environment |= {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        return await self._serving("stock", stock_command(self.config, port), environment, port, "/health")

    def on_disk(self, name: str, weights: LoraWeights) -> Path:
        """An adapter as a PEFT folder."""
        folder = self.folder / "adapters" / name
        save_adapter(folder, weights, "base")
        return folder

    async def _serving(
        self, name: str, command: list[str], environment: dict[str, str], port: int, ready: str
    ) -> httpx.AsyncClient:
        if name not in self._started:
            serving = self._open.enter_async_context(
                process(name, command, self._environment | environment, port, ready)
            )
            self._started[name] = asyncio.create_task(serving)
        return await self._started[name]


def stock_command(config: EngineConfig, port: int) -> list[str]:
    """The command line of vLLM's own server with the arguments that our engine has."""
    arguments = config.engine_arguments() | {"dtype": config.resolved_dtype(cpu_capabilities())}
    ours_only = {"worker_extension_cls", "use_tqdm_on_load"}
    flags: list[str] = []
    for name, value in arguments.items():
        if name in ours_only:
            continue
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        flags += [flag] if value is True else [flag, *map(str, values)]
    module = "vllm.entrypoints.openai.api_server"
    return [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *flags]


def cpu_capabilities() -> dict[str, object]:
    """What this CPU can do, as torch names it."""
    import torch

    return dict(torch.cpu.get_capabilities())


def start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process whose output goes to a file."""
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)


@asynccontextmanager
async def process(
    name: str, command: list[str], environment: dict[str, str], port: int, ready: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A server process from its start to its end; its log is runs/bench-NAME.log."""
    log = Path(f"runs/bench-{name}.log")
    log.parent.mkdir(exist_ok=True)
    server = start(command, environment, log)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=128)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
            await until_ready(http, server, ready, log)
            yield http
    finally:
        server.terminate()
        try:
            await asyncio.to_thread(server.wait, 30)
        except subprocess.TimeoutExpired:
            server.kill()


async def until_ready(http: httpx.AsyncClient, server: subprocess.Popen[bytes], path: str, log: Path) -> None:
    """Ask until the server says 200."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if (await http.get(path)).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        await asyncio.sleep(0.25)
    raise SystemExit(f"a server did not start; see {log}")


def descriptions(count: int, name: str) -> list[str]:
    """Task descriptions that nothing else uses."""
    return [f"Answer with the word that comes {n} places later in the alphabet ({name})." for n in range(count)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
