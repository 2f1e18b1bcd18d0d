"""Install a lock and this repository into a virtual environment, and show progress (`make` runs
it).

    python deploy/install.py VENV LOCK

uv installs the packages if it is present and finds a CPU build of torch, otherwise pip does. torch
is installed first and separately: its CPU build is on PyTorch's own index, unless the settings of
this machine name another source. The script uses the standard library only.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_MB = 190
LARGE_MB = 20
"""A download of this size gets a line of its own."""
HEARTBEAT_S = 15
"""Seconds between lines of progress where the output is not a terminal."""

_DOWNLOAD = re.compile(r"Downloading (\S+) \(([\d.]+) ?(k|K|M|G)i?B\)")
_MEGABYTES = {"k": 1e-3, "K": 1e-3, "M": 1.0, "G": 1e3}


class InstallError(Exception):
    """The environment cannot be created. The message gives the reason and the remedy."""


class Progress:
    """One step: its name, what it downloads, and the seconds that it has taken."""

    def __init__(self, step: str) -> None:
        self.step = step
        self._begun = time.monotonic()
        self._collected = 0
        self._file = ""
        self._done = threading.Event()
        self._terminal = sys.stdout.isatty()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def begin(self) -> None:
        """Name the step and start the clock."""
        print(f"{self.step} ...", flush=True)
        self._ticker.start()

    def read(self, line: str) -> None:
        """Read a line of output of pip or uv."""
        self._collected += line.startswith("Collecting ")
        if line.startswith(("Installing collected", "Prepared ")):  # pip and uv: all is downloaded
            self._file = "unpacking"
        if found := _DOWNLOAD.search(line):
            # pip prints the name of a file, uv that of a package.
            name = "-".join(found[1].split("-")[:2]) if found[1].endswith(".whl") else found[1]
            size = float(found[2]) * _MEGABYTES[found[3]]
            self._file = f"{name}, {size:.1f} MB"
            if size >= LARGE_MB and not self._terminal:
                print(f"  downloading {self._file}", flush=True)

    def end(self, outcome: str) -> None:
        """Stop the clock and print the outcome."""
        self._done.set()
        self._ticker.join()
        clear = "\r\033[K" if self._terminal else ""
        print(f"{clear}  {outcome} after {self._seconds:.0f} s", flush=True)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _tick(self) -> None:
        while not self._done.wait(1 if self._terminal else HEARTBEAT_S):
            parts = [f"{self._seconds:.0f} s"]
            parts += [f"package {self._collected}"] if self._collected else []
            parts += [self._file] if self._file else []
            start, end = ("\r\033[K", "") if self._terminal else ("", "\n")
            print(f"{start}  {', '.join(parts)}", end=end, flush=True)


class Installer:
    """`pip install` or `uv pip install` into one environment, without dependencies."""

    def __init__(self, command: list[str]) -> None:
        self.command = [*command, "--no-deps"]

    def run(self, step: str, *arguments: str) -> None:
        """Install something and show progress.

        Raises:
            InstallError: it failed. The message holds the end of the tool's output.
        """
        lines = []
        progress = Progress(step)
        progress.begin()
        command = [*self.command, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout or ():
                lines.append(line)
                progress.read(line)
        progress.end("failed" if process.returncode else "done")
        if process.returncode:
            raise InstallError(f"{' '.join(command)} failed:\n{''.join(lines[-20:])}")


def main() -> None:
    """Install. Exit with status 1 and a reason where that is not possible."""
    venv, lock = Path(sys.argv[1]), Path(sys.argv[2])
    begun = time.monotonic()
    try:
        install(venv, lock)
    except InstallError as error:
        sys.exit(f"install: {error}")
    print(f"{venv} is ready for {lock.name}, {time.monotonic() - begun:.0f} s in all", flush=True)


def install(venv: Path, lock: Path) -> None:
    """Create the environment if there is none, and install the lock.

    Raises:
        InstallError: the machine lacks something, or a step failed.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise InstallError(
            f"the lock is for Linux on x86-64, not for {platform.system()} on {platform.machine()}"
        )
    python = venv / "bin" / "python"
    uv = shutil.which("uv")
    pins = lock.read_text().count("==")
    with tempfile.TemporaryDirectory() as scratch:
        torch = Path(scratch) / "torch.lock"
        torch.write_text(_torch_of(lock))
        if not venv.exists():
            _make(venv, uv)
        _check(venv)
        installer = _with_torch(python, uv, torch)
    installer.run(f"{pins} packages of {lock.name}", "--require-hashes", "--requirement", str(lock))
    installer.run("this repository, as an editable package", "--no-build-isolation", "--editable", ".")


def _make(venv: Path, uv: str | None) -> None:
    """Make an environment with pip in it. uv does so only for a Python without `ensurepip`."""
    version = ".".join(map(str, sys.version_info[:2]))
    if importlib.util.find_spec("ensurepip") is not None:
        command = [sys.executable, "-m", "venv", str(venv)]
    elif uv is not None:
        command = [uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(venv)]
    else:
        raise InstallError(f"this Python lacks venv: apt-get install python{version}-venv, or install uv")
    if subprocess.run(command, check=False).returncode:
        shutil.rmtree(venv, ignore_errors=True)  # half an environment would pass for a whole one
        raise InstallError(f"{' '.join(command)} failed")


def _check(venv: Path) -> None:
    """Refuse an environment that an unsupported or removed interpreter has left."""
    python = venv / "bin" / "python"
    code = "import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
    try:
        usable = not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode
    except OSError:
        usable = False
    if not usable:
        raise InstallError(f"{venv} has no working Python 3.11, 3.12 or 3.13 with pip: remove it (make clean)")


def _with_torch(python: Path, uv: str | None, torch: Path) -> Installer:
    """An installer that has just installed torch.

    Raises:
        InstallError: neither uv nor pip finds a CPU build.
    """
    pip = Installer([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"])
    tools = {"pip": pip}
    if uv is not None:
        tools = {"uv": Installer([uv, "pip", "install", "--python", str(python)]), "pip": pip}
    reasons = []
    for name, installer in tools.items():
        for where, index in (("", ()), (f" from {TORCH_INDEX}", ("--extra-index-url", TORCH_INDEX))):
            try:
                step = f"torch, CPU build ({TORCH_MB} MB), with {name}{where}"
                installer.run(step, "--require-hashes", *index, "--requirement", str(torch))
            except InstallError as error:
                reasons.append(str(error))
            else:
                return installer
    raise InstallError("no CPU build of torch could be installed.\n" + "\n".join(reasons))


def _torch_of(lock: Path) -> str:
    """The lines of a lock, or of the lock that it builds on, that pin torch."""
    text = lock.read_text()
    if base := re.search(r"^-r (\S+)$", text, re.MULTILINE):
        return _torch_of(lock.parent / base[1])
    found = re.search(r"^torch==(.*\\\n)+.*\n", text, re.MULTILINE)
    if found is None:
        raise InstallError(f"{lock} does not pin torch")
    return found[0]


if __name__ == "__main__":
    main()
