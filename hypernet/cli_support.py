"""Shared by all commands: user errors as one line, and the number of CPU threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from hypernet.errors import T2lError
from hypernet.preflight import NotReadyError

log = logging.getLogger(__name__)

USAGE_ERROR = 2
"""Exit status after an error that the user can fix.

It is also click's status for a wrong option.
"""


def echo_error(message: str) -> None:
    """Write a command's error to stderr."""
    typer.echo(f"t2l: {message}", err=True)


@contextmanager
def user_errors(report: Callable[[str], None] = echo_error) -> Iterator[None]:
    """Turn an error that the user can fix into one line on stderr and exit status 2.

    Covers `T2lError` and `OSError` (a path that is absent, unreadable or unwritable, a full disk, a
    server that does not answer). Other exceptions are faults of the program and keep their
    traceback.

    Use as `with user_errors():` or as a decorator below `@app.command()`:

        @app.command()
        @user_errors()
        def generate(...): ...

    Args:
        report: called with the line.
    """
    try:
        yield
    except (T2lError, OSError) as error:
        log.debug("the command failed", exc_info=True)
        report(describe(error))
        raise typer.Exit(USAGE_ERROR) from error


def describe(error: Exception) -> str:
    """An error as one line. An `OSError` names its path first: "runs/a: Permission denied".

    `NotReadyError` alone has a line for each command to run.
    """
    if isinstance(error, NotReadyError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def use_threads(count: int | None) -> None:
    """Set the number of CPU threads that torch computes with.

    None leaves torch's default: all cores.
    """
    if count is not None:
        import torch  # slow to import: `--help` does without

        torch.set_num_threads(count)
