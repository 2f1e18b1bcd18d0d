"""Programs that misbehave, with namespaces and without."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hypernet.evaluation import sandbox
from hypernet.evaluation.sandbox import passes

pytestmark = pytest.mark.slow


@pytest.fixture(params=["isolated", "bare"], autouse=True)
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "bare":
        monkeypatch.setattr(sandbox, "_isolation", tuple)
    elif not sandbox._isolation():
        pytest.fail("this machine refuses namespaces: the isolated half cannot be shown here")
    yield request.param


def test_only_a_program_without_errors_passes() -> None:
    assert passes("def f(x):\n    return x + 1\nassert f(1) == 2\n")
    assert passes("import math, re, collections, heapq, itertools\nassert math.gcd(4, 6) == 2")
    assert not passes("assert 1 == 2")
    assert not passes("def f(:\n")
    assert not passes("raise KeyError('x')")
    assert not passes("x = '\udc80'\nraise SystemError")


@pytest.mark.parametrize(
    "exit_",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "quit_ = __import__('os')._exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "open('finished', 'w').write('forged'); import os; os._exit(0)",
        "import os\nos.mkdir('finished')",
    ],
)
def test_an_early_exit_is_no_pass(exit_: str) -> None:
    assert not passes(f"{exit_}\nassert False")


def test_an_endless_loop_ends() -> None:
    start = time.monotonic()
    assert not passes("while True: pass", wall_seconds=1.0)
    assert not passes("import time; time.sleep(60)", wall_seconds=0.5)
    assert time.monotonic() - start < 8


def test_memory_is_limited() -> None:
    assert not passes("x = bytearray(4 * 2**30)")
    assert not passes("x = []\nwhile True: x.append(' ' * 10**7)")


def test_output_and_files_are_limited() -> None:
    assert not passes("while True: print('x' * 10000)")
    assert not passes("open('big', 'wb').write(b'x' * 2**21)")
    assert passes("print('x' * 10000)")


def test_forked_processes_do_not_outlive_the_program() -> None:
    marker = f"t2l-orphan-{os.getpid()}"
    fork = f"import os, time\nif os.fork() == 0:\n    marker = '{marker}'\n    time.sleep(60)\n"
    before = {p.pid for p in psutil.process_iter()}
    assert passes(fork + "else: pass")
    time.sleep(0.05)
    left = [
        p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and "-I" in (p.info["cmdline"] or [])
    ]
    assert not left


def test_a_program_sees_no_environment_and_leaves_no_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("T2L_SECRET", "x")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert passes("import os\nassert 'T2L_SECRET' not in os.environ\nopen('left', 'w').write('x')")
    assert not list(tmp_path.iterdir())
    assert not passes("import torch")


def test_there_is_no_network_in_its_namespace(isolation: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        assert passes(program) == (isolation == "bare")
