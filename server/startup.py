"""Checks before the port opens, and errors of loading as one line."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hypernet.checkpoint import load_config
from hypernet.cli_support import describe
from hypernet.encoder import LAST_TOKEN_PREFIX, REMOTE_CODE_PREFIX
from hypernet.errors import T2lError
from hypernet.hardware import device_problem
from hypernet.model_paths import HUB_ID, model_folder
from server.errors import ServiceError
from server.settings import Settings


class StartupError(T2lError):
    """A setting names something that the server cannot use."""


def check_startup(settings: Settings) -> None:
    """Check the models' configurations and the device before the port opens.

    Loading takes a minute behind an open port, and a mistake must not take that long to be
    reported. `hypernet.preflight` has already checked that packages and files are present.
    Hub ids are not looked up here, because a download may take minutes too.

    Raises:
        T2lError: one of them cannot be used. The message names the setting.
    """
    try:
        load_config(settings.checkpoint)
    except T2lError as error:
        raise StartupError(f"T2L_CHECKPOINT: {error}") from error
    _check_model_folder("T2L_BASE_MODEL", settings.base_model)
    encoder = settings.encoder and settings.encoder.removeprefix(REMOTE_CODE_PREFIX)
    _check_model_folder("T2L_ENCODER", encoder and encoder.removeprefix(LAST_TOKEN_PREFIX))
    if problem := device_problem(settings.hypernetwork_device):
        raise StartupError(f"T2L_HYPERNETWORK_DEVICE: {problem}")


def describe_failure(error: Exception) -> str | None:
    """An error of loading as one line, if a setting or the machine can have caused it.

    Returns:
        The line; None for a fault of the program, which needs its traceback.
    """
    if isinstance(error, ValidationError):  # of vLLM's own configuration
        first = error.errors()[0]["msg"].removeprefix("Value error, ")
        return " ".join(first.split())
    if isinstance(error, T2lError | ServiceError | OSError | ValueError):
        return describe(error)
    return None


def _check_model_folder(variable: str, name: str | None) -> None:
    if name is None or (HUB_ID.fullmatch(name) and not Path(name).exists()):
        return
    try:
        folder = model_folder(name)
    except T2lError as error:
        raise StartupError(f"{variable}: {error}") from error
    if not (folder / "config.json").is_file():
        raise StartupError(f"{variable}: the folder {name} has no config.json, so it is not a model's")
