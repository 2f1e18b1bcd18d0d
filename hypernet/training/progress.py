"""Output of a training command: its slow phases with their seconds, and the progress of the run.

On a terminal a bar is redrawn in place. Elsewhere (a file, a pipe, a log collector) plain lines
appear, one every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL = 10.0
"""Seconds between lines where there is no terminal."""


class Reporter:
    """Prints the progress of one command.

    Args:
        shown: False prints nothing, as all processes of a run but the first do.
        console: where to print; None is stdout.
        interval: seconds between plain lines about steps.
        clock: gives seconds.
    """

    def __init__(
        self,
        shown: bool = True,
        console: Console | None = None,
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console()
        self._shown, self._interval, self._clock = shown, interval, clock
        self._bar: tuple[Progress, TaskID] | None = None
        self._due = -float("inf")

    def line(self, text: str) -> None:
        """Print a line; above the bar, if there is one."""
        if self._shown:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Print the begin of a slow phase, such as "loading the base model", and its duration."""
        started = self._clock()
        if self._bar:
            self._bar[0].update(self._bar[1], note=f"{name} ...")
            yield
        elif self._shown and self._console.is_terminal:
            with self._console.status(f"{name} ..."):
                yield
        else:
            self.line(f"{name} ...")
            yield
        self.line(f"{name}: {self._clock() - started:.1f} s")

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Within it `step` is called."""
        if not (self._shown and self._console.is_terminal):
            yield
            return
        columns = TextColumn("{task.fields[note]}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console, refresh_per_second=1) as bar:
            self._bar = bar, bar.add_task("train", total=1.0, note="")
            try:
                yield
            finally:
                self._bar = None

    def step(self, fraction: float, note: str) -> None:
        """Print the progress: always on a terminal, otherwise once per interval.

        Args:
            fraction: of the run that is over, in [0, 1].
            note: loss, speed and time left.
        """
        if self._bar:
            self._bar[0].update(self._bar[1], completed=fraction, note=note)
        elif self._clock() >= self._due:
            self._due = self._clock() + self._interval
            self.line(f"{min(fraction, 1):4.0%}  {note}")
