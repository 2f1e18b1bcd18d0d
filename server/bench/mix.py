"""What a load looks like: who asks what, and when. Drawn beforehand from a seed, so it can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass

VERBS = ("Rewrite", "Summarise", "Classify", "Translate", "Continue", "Explain", "Shorten", "Correct")
OBJECTS = ("the sentence", "the review", "the question", "the headline", "the recipe", "the dialogue")
MANNERS = ("in plain words", "for a child", "in one line", "as a poem", "in formal English", "with an example")
PROMPTS = ("Tell me about the sea.", "How does bread rise?", "Why do cats purr?", "What makes a good map?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """An open-loop load: arrivals do not wait for answers, as real users do not."""

    rate: float = 4.0
    """Mean arrivals per second; gaps are exponential (Poisson arrivals)."""
    seconds: float = 30.0
    """How long requests go on arriving."""
    descriptions: int = 32
    """Descriptions in circulation, drawn by Zipf's law."""
    zipf: float = 1.0
    """The k-th most popular description is drawn with weight k^-zipf; 0 is uniform."""
    new_share: float = 0.1
    """Share of requests with a description that nobody ever sent."""
    base_share: float = 0.1
    """Share of requests without a description."""
    max_tokens: int = 32
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come."""

    at: float
    """Seconds after the start."""
    description: str | None
    prompt: str
    seed: int
    """For the sampling of its completion."""


def schedule(mix: Mix) -> list[Arrival]:
    """All arrivals of a run, in order of time; the same for the same mix."""
    rng = random.Random(mix.seed)
    known = [describe(rng, n) for n in range(mix.descriptions)]
    weights = [(k + 1) ** -mix.zipf for k in range(mix.descriptions)]
    arrivals: list[Arrival] = []
    at = rng.expovariate(mix.rate)
    while at < mix.seconds:
        kind = rng.random()
        if kind < mix.new_share:
            description: str | None = describe(rng, mix.descriptions + len(arrivals))
        elif kind < mix.new_share + mix.base_share:
            description = None
        else:
            description = rng.choices(known, weights)[0]
        # The number makes prompts differ from their first words on: no prefix cache answers for the engine.
        prompt = f"{rng.randrange(10**6)}. {rng.choice(PROMPTS)}"
        arrivals.append(Arrival(at, description, prompt, rng.randrange(2**31)))
        at += rng.expovariate(mix.rate)
    return arrivals


def describe(rng: random.Random, number: int) -> str:
    """A task description that no other number has, and no other run with another seed."""
    words = f"{rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(MANNERS)}"
    return f"{words}, in the style of author {number}-{rng.randrange(16**6):06x}."
