"""Runs a program that a model wrote, and says whether it got to its end.

The program runs in a fresh interpreter (`-I -S`: no site-packages, no environment, no
user files on the path), in an empty folder that is deleted afterwards, with limits on
CPU time, memory, processes, file sizes and wall time; past the wall time its whole
process group is killed. Where the kernel lets us, it gets network and process
namespaces of its own: then there is no network, and nothing that it started outlives it.

What this is not: a jail against an attacker. The program runs as the user who
evaluates and can read what that user can read; where namespaces are not to be had it
could also reach the network, and a process that leaves the group could live on until
its CPU time is up. Models write such programs by accident, not by design; whoever
evaluates models that they do not trust should do it in a container.
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
"""Largest file it may write, its output included: the file system, unlike a pipe, needs no reader."""

# Runs inside the sandbox, before the program. The number of processes is a limit per user, which
# says nothing inside a user namespace's own count and does not bind root; memory limits each process.
_BOOT = f"""
import os, resource, sys
for what, limit in (
    (resource.RLIMIT_CPU, {CPU_SECONDS}),
    (resource.RLIMIT_AS, {MEMORY_BYTES}),
    (resource.RLIMIT_FSIZE, {FILE_BYTES}),
    (resource.RLIMIT_NPROC, 32),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (limit, limit))
mark, program = sys.stdin.read().split("\\n", 1)
sys.stdin.close()
exec(compile(program, "program", "exec"), {{"__name__": "__main__"}})
with open("finished", "w") as file:
    file.write(mark)
"""


def passes(program: str, wall_seconds: float = WALL_SECONDS) -> bool:
    """Whether a program runs to its last line: no exception, no early exit, within all limits.

    The end is told by a random word that is written after the last line: leaving early with
    status 0 is no pass.
    """
    mark = secrets.token_hex(16)
    with TemporaryDirectory(prefix="t2l-") as folder, (Path(folder) / "output").open("wb") as output:
        process = subprocess.Popen(
            [*_isolation(), sys.executable, "-I", "-S", "-c", _BOOT],
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
    """End what is left of a process and of all that it started in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@cache
def _isolation() -> tuple[str, ...]:
    """The command that gives a program its own network and processes; empty if the kernel refuses."""
    unshare = which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    tried = subprocess.run([*command, "true"], check=False, capture_output=True)
    return command if tried.returncode == 0 else ()
