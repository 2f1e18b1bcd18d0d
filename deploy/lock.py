"""Resolve the extras of pyproject.toml into two locks with hashes (`make lock`; needs uv).

`requirements-cpu.lock` is for production: the extras `cpu`, `embedded` and `lexical`.
`requirements-dev.lock` adds the extra `dev`. Both hold for every interpreter in
`INTERPRETERS` on Linux x86-64: a line may carry an environment marker, and it carries
the hash of every wheel that one of these interpreters may choose.

Both locks are installed with `--no-deps`, because some packages declare dependencies that
must not be installed (`left_out`). Versions stay as they are in the present locks where
that is possible; `--upgrade` resolves them anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).parent
PROJECT = HERE.parent / "pyproject.toml"
PRODUCTION = HERE / "requirements-cpu.lock"
DEVELOPMENT = HERE / "requirements-dev.lock"
EXTRAS = ("cpu", "embedded", "lexical")

INTERPRETERS = ("3.11.0", "3.11.2", "3.11.7", "3.12.0", "3.12.12", "3.13.0", "3.13.9")
"""Interpreters whose markers are evaluated. A dependency may depend on the patch release: redis
needs `async-timeout` below 3.11.3."""

TORCH = "2.13.0"
TORCH_WHEELS = {
    "3.11": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "3.12": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
    "3.13": "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",
}
"""SHA-256 of the CPU wheels of torch for manylinux_2_28_x86_64. PyPI does not have these wheels;
docs/decisions.md gives the source of the hashes."""
TORCH_REQUIRES = (
    *("filelock", "fsspec>=0.8.5", "jinja2", "networkx>=2.5.1", "setuptools>=77.0.3"),
    *("sympy>=1.13.3", "typing-extensions>=4.10.0"),
)
"""Dependencies of the CPU wheels. The wheels on PyPI also declare those of CUDA."""

ONLY_ON_LINUX = ("intel-cmplr-lib-ur==2024.2.1",)
"""Dependencies that uv overlooks. It reads the metadata of one wheel of a release, and the wheels
of intel-openmp declare different dependencies on different platforms."""

_MANYLINUX = re.compile(r"(manylinux\w*|linux)_x86_64")
_ALWAYS_TRUE = re.compile(
    r"(python_full_version < '3\.14'|implementation_name == 'cpython'|sys_platform == 'linux'"
    r"|platform_machine == 'x86_64'|platform_python_implementation != 'PyPy')( and )?"
)


@dataclass(frozen=True)
class Pin:
    """One package at one version, for the interpreters for which the marker is true."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        """The lines of a lock."""
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n".join([head, *(f"    --hash=sha256:{digest}" for digest in self.hashes)])


def left_out() -> set[str]:
    """Packages that some locked package declares and neither lock holds, on purpose."""
    project = tomllib.loads(PROJECT.read_text())
    # xgrammar requires triton, whose kernels run on a GPU only.
    return {*project["tool"]["uv"]["exclude-dependencies"], "triton"}


def environment(interpreter: str) -> dict[str, str]:
    """The marker variables of a CPython on Linux x86-64."""
    return {
        "implementation_name": "cpython",
        "implementation_version": interpreter,
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": interpreter,
        "python_version": ".".join(interpreter.split(".")[:2]),
        "sys_platform": "linux",
        "extra": "",
    }


def read(lock: Path) -> list[Requirement]:
    """The pins of one lock file, with markers and without hashes."""
    lines = lock.read_text().splitlines() if lock.exists() else []
    return [Requirement(line.removesuffix(" \\")) for line in lines if line[:1].isalnum()]


def resolve(extras: tuple[str, ...], constraints: list[str]) -> list[Pin]:
    """The packages that the project needs with some of its extras, in the order of their names."""
    # While uv resolves, the CUDA wheels on PyPI stand for torch: every machine reaches PyPI, and
    # it has the wheels of every interpreter. Their dependencies are replaced.
    declared = ", ".join(f'"{each}"' for each in TORCH_REQUIRES)
    metadata = f'name = "torch"\nversion = "{TORCH}"\nrequires-dist = [{declared}]\n'
    inputs = {
        "pyproject.toml": f"{PROJECT.read_text()}\n[[tool.uv.dependency-metadata]]\n{metadata}",
        "more.in": "\n".join(ONLY_ON_LINUX),
        "overrides": f"torch=={TORCH}",
        "constraints": "\n".join(constraints),
        "excludes": "\n".join(sorted(left_out())),
    }
    command = ["uv", "pip", "compile", "pyproject.toml", "more.in", "--universal", "--no-sources"]
    command += ["--quiet", "--python-version", INTERPRETERS[0], "--overrides", "overrides"]
    command += ["--constraints", "constraints", "--excludes", "excludes"]
    command += [word for extra in extras for word in ("--extra", extra)]
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in inputs.items():
            Path(scratch, name).write_text(text)
        subprocess.run([*command, "--output-file", "pylock.toml"], cwd=scratch, check=True)
        packages = tomllib.loads(Path(scratch, "pylock.toml").read_text())["packages"]
    return sorted(map(_pin, packages), key=lambda pin: (pin.name, pin.version))


def _pin(package: dict[str, Any]) -> Pin:
    name, version = package["name"], package["version"]
    marker = _marker(package.get("marker", ""))
    if name == "torch":
        return Pin(name, f"{TORCH}+cpu", marker, tuple(sorted(TORCH_WHEELS.values())))
    machines = [_tags(each) for each in INTERPRETERS if _applies(marker, each)]
    digests, served = set(), [False] * len(machines)
    for wheel in package.get("wheels", []):
        tags = _manylinux(str(wheel["url"]).rsplit("/", 1)[1].replace("%2B", "+"))
        fits = [bool(tags & machine) for machine in machines]
        served = [before or now for before, now in zip(served, fits, strict=True)]
        if any(fits):
            digests.add(wheel["hashes"]["sha256"])
    if not all(served):
        if "sdist" not in package:
            raise SystemExit(f"lock: {name} {version} has neither a wheel for each interpreter nor a source")
        digests.add(package["sdist"]["hashes"]["sha256"])
    return Pin(name, version, marker, tuple(sorted(digests)))


def _marker(resolved: str) -> str:
    """A marker without conditions that hold on every supported machine.

    Empty: no other condition.
    """
    if all(_applies(resolved, interpreter) for interpreter in INTERPRETERS):
        return ""
    return _ALWAYS_TRUE.sub("", resolved).removesuffix(" and ").replace("'", '"')


def _applies(marker: str, interpreter: str) -> bool:
    return not marker or Marker(marker).evaluate(environment(interpreter))


def _manylinux(wheel: str) -> set[Tag]:
    """The tags of a wheel for Linux x86-64, with one platform name for all versions of glibc."""
    tags = parse_wheel_filename(wheel)[3]
    return {Tag(t.interpreter, t.abi, _MANYLINUX.sub("linux_x86_64", t.platform)) for t in tags}


def _tags(interpreter: str) -> set[Tag]:
    version = tuple(int(part) for part in interpreter.split(".")[:2])
    named, platforms = f"cp{version[0]}{version[1]}", ["linux_x86_64"]
    own = cpython_tags(version, platforms=platforms)
    return {*own, *compatible_tags(version, named, platforms)}


def write(lock: Path, note: str, pins: list[Pin]) -> None:
    """Write one lock file."""
    head = "# Made by `make lock` from pyproject.toml. For CPython 3.11.0 to 3.13, Linux x86-64, CPU.\n"
    lock.write_text(head + note + "".join(f"{pin}\n" for pin in pins))
    print(f"{lock.name}: {len(pins)} packages")


def main() -> None:
    """Write both locks beside this file."""
    present = [] if "--upgrade" in sys.argv[1:] else read(PRODUCTION) + read(DEVELOPMENT)
    kept = [str(pin) for pin in present if pin.name != "torch"]
    production = resolve(EXTRAS, kept)
    # The development lock must not move a version of the production lock.
    pinned = [f"{pin.name}=={pin.version}" for pin in production if pin.name != "torch"]
    everything = resolve((*EXTRAS, "dev"), [*kept, *pinned])
    names = {pin.name for pin in production}
    note = "# Install it with --require-hashes --no-deps. torch needs an index of CPU builds:\n"
    note += "# --extra-index-url https://download.pytorch.org/whl/cpu\n"
    write(PRODUCTION, note, production)
    added = [pin for pin in everything if pin.name not in names]
    write(DEVELOPMENT, f"-r {PRODUCTION.name}\n", added)


if __name__ == "__main__":
    main()
