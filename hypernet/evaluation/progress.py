"""Progress of an evaluation on stderr: a bar in a terminal,
plain lines where the output is redirected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import track

T = TypeVar("T")
LINES = 20
"""Number of lines without a terminal."""


def progress(results: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Pass results on, and show how many of `total` have come."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(results, total=total, description=description, console=console)
        return
    for number, result in enumerate(results, start=1):
        if number == total or number * LINES // total > (number - 1) * LINES // total:
            typer.echo(f"{description}: {number} of {total}", err=True)
        yield result
