"""Runs a program that a model generated, and tells whether it ran to its end.

The program runs in a fresh interpreter (`-I -S`: no site-packages, environment or user files on the
path), in an empty folder that is deleted afterwards. CPU time, memory, processes, file sizes and
wall time are limited. Past the wall time the whole process group is killed. Where the kernel
allows, the program gets network and process namespaces of its own: then it has no network, and
nothing that it starts outlives it.

This is no jail against an attacker. The program runs as the evaluating user and can read that
user's files. Without namespaces it also has the network, and a process that leaves the group lives
until its CPU time is up. Evaluate a model that you do not trust in a container.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

WALL_SECONDS = 10.0
CPU_SECONDS = 5
MEMORY_BYTES = 512 * 2**20
FILE_BYTES = 2**20
"""Largest file that the program may write.

Its output is a file too, because a pipe would need a reader.
"""

# Runs inside the sandbox, before the program. RLIMIT_NPROC counts processes per user: it does not
# bind root, and a user namespace has a count of its own. RLIMIT_AS limits each process.
_BOOTSTRAP = f"""
import os, resource, sys
for resource_, limit in (
    (resource.RLIMIT_CPU, {CPU_SECONDS}),
    (resource.RLIMIT_AS, {MEMORY_BYTES}),
    (resource.RLIMIT_FSIZE, {FILE_BYTES}),
    (resource.RLIMIT_NPROC, 32),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(resource_, (limit, limit))
mark, program = sys.stdin.read().split("\\n", 1)
sys.stdin.close()
exec(compile(program, "program", "exec"), {{"__name__": "__main__"}})
with open("finished", "w") as file:
    file.write(mark)
"""


def passes(program: str, wall_seconds: float = WALL_SECONDS) -> bool:
    """Whether a program runs to its last line without exception or early exit, within all limits.

    A random word is written after the last line, so an early exit with status 0 is no pass.
    """
    mark = secrets.token_hex(16)
    with TemporaryDirectory(prefix="t2l-") as folder, (Path(folder) / "output").open("wb") as output:
        process = subprocess.Popen(
            [*_isolation(), sys.executable, "-I", "-S", "-c", _BOOTSTRAP],
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            with suppress(subprocess.TimeoutExpired, BrokenPipeError):
                process.communicate(f"{mark}\n{program}".encode(errors="replace"), wall_seconds)
        finally:
            _kill_group(process)
        finished = Path(folder) / "finished"
        try:
            return process.returncode == 0 and finished.read_text() == mark
        except (OSError, ValueError):
            return False


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and every process in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@cache
def _isolation() -> tuple[str, ...]:
    """Command that gives a program its own network and processes; empty if the kernel refuses."""
    unshare = which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    trial = subprocess.run([*command, "true"], check=False, capture_output=True)
    return command if trial.returncode == 0 else ()
