"""Model names as people give them: a folder, a hub id, or nothing for the embedded default."""

from __future__ import annotations

from pathlib import Path

from hypernet.bundled_models import (
    BASE_MODEL_NAME,
    ENCODER_NAME,
    ModelNotFoundError,
    base_model_path,
    encoder_path,
)

_PACKAGE = Path(__file__).parent
# A wheel carries the default checkpoint inside the package; in the repository all checkpoints lie beside it.
_IN_WHEEL = _PACKAGE / "checkpoints"
_CHECKPOINTS = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "checkpoints"
DEFAULT_CHECKPOINT = _CHECKPOINTS / "smollm2-135m"
"""The hypernetwork that ships with the project."""


def base_model_folder(name: str | None = None) -> Path:
    """Where a base model lies. None, or its own name, is the embedded SmolLM2-135M-Instruct."""
    return base_model_path() if name in (None, BASE_MODEL_NAME) else model_folder(str(name))


def encoder_folder(name: str | None = None) -> Path:
    """Where a sentence encoder lies. None, or its own name, is the embedded all-MiniLM-L6-v2."""
    return encoder_path() if name in (None, ENCODER_NAME) else model_folder(str(name))


def model_folder(name: str) -> Path:
    """A folder as it is; anything else is a hub id, downloaded to the hub's cache.

    Raises:
        ModelNotFoundError: it is neither.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download  # only those who name a hub id pay for the import
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"])
        )
    except (OSError, HFValidationError) as error:
        raise ModelNotFoundError(f"{name} is neither a folder nor to be had from the hub ({error})") from error
