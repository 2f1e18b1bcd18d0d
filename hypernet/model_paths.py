"""Model names as users give them: a folder, a hub id, or nothing for the bundled model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypernet.bundled_models import (
    BASE_MODEL_HUB_ID,
    BASE_MODEL_NAME,
    ENCODER_NAME,
    ModelNotFoundError,
    base_model_path,
    encoder_path,
)
from hypernet.errors import T2lError

_PACKAGE = Path(__file__).parent
# A wheel carries the default checkpoint inside the package; in the repository all checkpoints lie
# beside it.
_IN_WHEEL = _PACKAGE / "checkpoints"
_CHECKPOINTS = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "checkpoints"
DEFAULT_CHECKPOINT = _CHECKPOINTS / "smollm2-135m"
"""The hypernetwork that ships with the project."""


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]*\w)?")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


class ModelLoadError(T2lError):
    """A model's folder whose files cannot be loaded. The message names the folder."""


@contextmanager
def loading_model(folder: Path) -> Iterator[None]:
    """Name the folder in every error of another library's loader, and hide its progress bar.

    transformers, tokenizers and sentence-transformers raise all kinds of exceptions for a damaged
    file, plain `Exception` included. Only calls of their loaders belong into this context.

    Raises:
        ModelLoadError: the folder cannot be loaded.
    """
    from transformers.utils.logging import disable_progress_bar  # slow to import

    disable_progress_bar()  # it would fill the server's log and redirected output
    try:
        yield
    except T2lError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ModelLoadError(
            f"the model in {folder} cannot be loaded ({type(error).__name__}: {reason}). Check its files, or "
            "name another folder"
        ) from error


def base_model_folder(name: str | None = None, cache_dir: Path | None = None) -> Path:
    """Folder of a base model.

    Args:
        name: a folder or hub id; None, or its own name, is the bundled SmolLM2-135M-Instruct.
        cache_dir: folder for unpacked models; None: `bundled_models.default_cache_dir()`.

    Raises:
        ModelNotFoundError: the name is neither a folder nor a hub id that can be downloaded.
    """
    return base_model_path(cache_dir) if name in (None, BASE_MODEL_NAME) else model_folder(str(name))


def encoder_folder(name: str | None = None) -> Path:
    """Folder of a sentence encoder; None, or its own name, is the bundled all-MiniLM-L6-v2.

    Raises:
        ModelNotFoundError: the name is neither a folder nor a hub id that can be downloaded.
    """
    return encoder_path() if name in (None, ENCODER_NAME) else model_folder(str(name))


def model_folder(name: str, files: Sequence[str] = _HUB_FILES) -> Path:
    """A folder as it is. Any other name is a hub id, downloaded to the hub's cache.

    Args:
        name: a folder or hub id.
        files: patterns of the files to download.

    Raises:
        ModelNotFoundError: the name is neither a folder nor a hub id that can be downloaded.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():  # Path("") is the working directory
        return path
    if name and path.exists():
        raise ModelNotFoundError(f"{name} is a file: name the folder that holds the model's config.json")
    if not HUB_ID.fullmatch(name):
        raise ModelNotFoundError(
            f"{name}: no such folder. Name a folder with a model's config.json, tokenizer and safetensors "
            "weights, or a hub id such as organisation/model"
        )
    from huggingface_hub import snapshot_download  # slow to import: a folder does without

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelNotFoundError(
            f"{name} is no folder, and the model hub does not provide it: {reason}. Check the name and the "
            "network, or name a local folder"
        ) from error


def hub_id(name: str) -> str | None:
    """The id under which the model hub knows a base model; None for a local model.

    Args:
        name: a hub id, a folder (a snapshot in the hub's cache included), or the bundled model's
            name.
    """
    if name in (BASE_MODEL_NAME, BASE_MODEL_HUB_ID):
        return BASE_MODEL_HUB_ID
    folder = Path(name).expanduser()
    if folder.is_dir():
        # The hub's cache: models--ORGANISATION--MODEL/snapshots/REVISION
        kind, *parts = folder.parent.parent.name.split("--")
        return "/".join(parts) if kind == "models" and folder.parent.name == "snapshots" else None
    return name if "/" in name and HUB_ID.fullmatch(name) else None


def model_name(name: str) -> str:
    """What to call a base model: its hub id where it has one, otherwise the name of its folder."""
    return hub_id(name) or Path(name).name


def export_name(named: str | None, trained_for: str) -> str:
    """The base model that an exported adapter names, by hub id if one is known.

    Args:
        named: the base model that the server was started with; None for the bundled one.
        trained_for: the base model that the hypernetwork's checkpoint names. Both have equal
            weights.
    """
    return next((name for name in (named, trained_for) if name and hub_id(name)), trained_for)
