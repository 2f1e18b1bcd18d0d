"""Two things timed side by side, and the row of the table that comes of it."""

from __future__ import annotations

import inspect
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

Work = Callable[[int], float | Awaitable[float]]
"""Does round number n and returns what it measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """A ratio of two medians' worth of rounds.

    Attributes:
        measure: what the ratio says.
        target: e.g. ">= 2.0"; empty for a row that only informs.
        a: numerator, one number a round.
        b: denominator, one number a round.
        unit: of both.
    """

    measure: str
    target: str
    a: list[float]
    b: list[float]
    unit: str

    @property
    def ratios(self) -> list[float]:
        """One per round: what was near in time shares the machine's moods."""
        return [a / b for a, b in zip(self.a, self.b, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> Literal["", "met", "missed"]:
        """Whether the target is met."""
        if not self.target:
            return ""
        sign, bound = self.target.split()
        met = self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)
        return "met" if met else "missed"

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "measure": self.measure,
            "target": self.target,
            "ratio": self.ratio,
            "verdict": self.verdict,
            "a": self.a,
            "b": self.b,
            "unit": self.unit,
        }


async def interleaved(rounds: int, works: Mapping[str, Work]) -> dict[str, list[float]]:
    """Every work once a round, in an order drawn for each: nobody always follows the same neighbour."""
    seen: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in random.Random(number).sample(list(works), len(works)):
            result = works[name](number)
            seen[name].append(await result if inspect.isawaitable(result) else result)
    return seen


@contextmanager
def one_thread() -> Iterator[None]:
    """As the server's own process has it (`T2L_HYPERNETWORK_THREADS`)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
