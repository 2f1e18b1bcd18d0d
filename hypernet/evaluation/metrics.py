"""Scores of answers, and how sure one may be of their mean."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from rouge_score.rouge_scorer import RougeScorer

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is one of the references, up to case, punctuation and white space."""
    return float(_normalise(answer) in {_normalise(reference) for reference in references})


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Best ROUGE-L F-measure against the references (Lin 2004; Google's implementation, stemmed). 0..1."""
    return max(float(_scorer().score(reference, answer)["rougeL"].fmeasure) for reference in references)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "rougeL": rouge_l}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% percentile-bootstrap interval over n tasks."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Resample tasks, not examples: tasks are what one wants to generalise to."""
    rng = random.Random(seed)
    n = len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(resamples))
    return Interval(sum(values) / n, means[int(0.025 * resamples)], means[int(0.975 * resamples)], n)


def _normalise(text: str) -> str:
    plain = text.lower().translate(_NO_PUNCTUATION)
    # An answer that is all punctuation would vanish; compare it as it is.
    return " ".join((plain if plain.strip() else text).split())


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
