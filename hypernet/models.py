"""Model names as people give them: a folder, a hub id, or nothing for the embedded default."""

from __future__ import annotations

from pathlib import Path

from hypernet.embedded import BASE_MODEL_NAME, ENCODER_NAME, base_model_path, encoder_path


def base_model_folder(name: str | None = None) -> Path:
    """Where a base model lies. None, or its own name, is the embedded SmolLM2-135M-Instruct."""
    return base_model_path() if name in (None, BASE_MODEL_NAME) else _folder(str(name))


def encoder_folder(name: str | None = None) -> Path:
    """Where a sentence encoder lies. None, or its own name, is the embedded all-MiniLM-L6-v2."""
    return encoder_path() if name in (None, ENCODER_NAME) else _folder(str(name))


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download  # only those who name a hub id pay for the import

    return Path(snapshot_download(name))
