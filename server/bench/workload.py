"""Random workloads: descriptions, prompts and arrival times.

A seed makes a workload reproducible.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

VERBS = ("Rewrite", "Summarise", "Classify", "Translate", "Continue", "Explain", "Shorten", "Correct")
OBJECTS = ("the sentence", "the review", "the question", "the headline", "the recipe", "the dialogue")
MANNERS = ("in plain words", "for a child", "in one line", "as a poem", "in formal English", "with an example")
PROMPTS = ("Tell me about the sea.", "How does bread rise?", "Why do cats purr?", "What makes a good map?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """An open-loop workload: arrivals do not wait for responses, as with independent users."""

    rate: float = 4.0
    """Mean arrivals per second. Intervals are exponential (a Poisson process)."""
    seconds: float = 30.0
    """Seconds in which requests arrive."""
    descriptions: int = 32
    """Number of known descriptions, which are drawn by Zipf's law."""
    zipf: float = 1.0
    """The k-th most popular description has weight k^-zipf. 0: uniform."""
    new_share: float = 0.1
    """Share of requests with a new description."""
    base_share: float = 0.1
    """Share of requests without a description."""
    max_tokens: int = 32
    """Completion tokens of each request."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a workload."""

    at: float
    """Seconds after the start of the run."""
    description: str | None
    prompt: str
    seed: int
    """Sampling seed of the completion."""


def schedule(workload: Workload) -> list[Arrival]:
    """All arrivals of a run in order of time. Equal workloads give equal schedules."""
    rng = random.Random(workload.seed)
    known = [describe(rng, n) for n in range(workload.descriptions)]
    weights = [(k + 1) ** -workload.zipf for k in range(workload.descriptions)]
    arrivals: list[Arrival] = []
    at = rng.expovariate(workload.rate)
    while at < workload.seconds:
        kind = rng.random()
        if kind < workload.new_share:
            description: str | None = describe(rng, workload.descriptions + len(arrivals))
        elif kind < workload.new_share + workload.base_share:
            description = None
        else:
            description = rng.choices(known, weights)[0]
        # The number makes the first tokens of prompts differ, so that no prefix cache hides work.
        prompt = f"{rng.randrange(10**6)}. {rng.choice(PROMPTS)}"
        arrivals.append(Arrival(at, description, prompt, rng.randrange(2**31)))
        at += rng.expovariate(workload.rate)
    return arrivals


def describe(rng: random.Random, number: int) -> str:
    """A task description that differs for each number and each seed."""
    words = f"{rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(MANNERS)}"
    return f"{words}, in the style of author {number}-{rng.randrange(16**6):06x}."
