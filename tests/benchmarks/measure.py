"""Side-by-side measurements and their comparison."""

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

Measurement = Callable[[int], float | Awaitable[float]]
"""Runs round n and returns the measured value."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ratio of two quantities that were measured in the same rounds.

    Attributes:
        measure: label of the ratio.
        target: condition on the ratio, such as ">= 2.0". Empty: no target.
        a: numerator, one value per round.
        b: denominator, one value per round.
        unit: unit of both.
    """

    measure: str
    target: str
    a: list[float]
    b: list[float]
    unit: str

    @property
    def ratios(self) -> list[float]:
        """One ratio per round: values of one round were measured under the same load."""
        return [a / b for a, b in zip(self.a, self.b, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> Literal["", "met", "missed"]:
        """Whether the ratio meets the target."""
        if not self.target:
            return ""
        sign, bound = self.target.split()
        met = self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)
        return "met" if met else "missed"

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return {
            "measure": self.measure,
            "target": self.target,
            "ratio": self.ratio,
            "verdict": self.verdict,
            "a": self.a,
            "b": self.b,
            "unit": self.unit,
        }


async def run_interleaved(rounds: int, measurements: Mapping[str, Measurement]) -> dict[str, list[float]]:
    """Run every measurement once per round, in a random order for each round, so that none always
    follows the same other one. Returns the values by name."""
    values: dict[str, list[float]] = {name: [] for name in measurements}
    for number in range(rounds):
        for name in random.Random(number).sample(list(measurements), len(measurements)):
            result = measurements[name](number)
            values[name].append(await result if inspect.isawaitable(result) else result)
    return values


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit torch to one thread, as the server does by default (`T2L_HYPERNETWORK_THREADS`)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def elapsed_seconds(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
