"""What a training command prints, on a terminal and without one."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from hypernet.training.progress import Reporter


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def reporter(terminal: bool = False, shown: bool = True) -> tuple[Reporter, Clock, Callable[[], list[str]]]:
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    return Reporter(shown, console, interval=10, clock=clock), clock, lambda: file.getvalue().splitlines()


def test_a_phase_is_announced_and_ends_with_its_seconds() -> None:
    made, clock, lines = reporter()
    with made.phase("loading the base model"):
        assert lines() == ["loading the base model ..."]
        clock.now = 3.25
    assert lines()[1:] == ["loading the base model: 3.2 s"]


def test_without_a_terminal_there_is_one_line_of_steps_an_interval() -> None:
    made, clock, lines = reporter()
    with made.steps():
        for second in range(25):
            clock.now = float(second)
            made.step(second / 100, f"step {second}")
    assert lines() == ["  0%  step 0", " 10%  step 10", " 20%  step 20"]


def test_on_a_terminal_every_step_moves_the_bar_and_lines_stand_above_it() -> None:
    made, _, lines = reporter(terminal=True)
    with made.steps():
        with made.phase("compiling"):
            pass
        made.line("step 7: validation_nll 2.1000")
        made.step(0.25, "step 8 of the bar")
    text = "\n".join(lines())
    assert "step 8 of the bar" in text and "validation_nll 2.1000" in text and "compiling: 0.0 s" in text


def test_texts_in_brackets_are_printed_as_they_are() -> None:
    made, _, lines = reporter()
    made.line("task [red] trains")
    assert lines() == ["task [red] trains"]


def test_a_process_that_is_not_the_first_prints_nothing() -> None:
    for terminal in (False, True):
        made, _, lines = reporter(terminal, shown=False)
        with made.phase("loading"), made.steps():
            made.step(0.5, "step 1")
            made.line("a line")
        assert lines() == []
