"""Scores of answers, and bootstrap intervals of their means."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, references: Sequence[str], case_sensitive: bool = False) -> float:
    """1 if the answer equals a reference, else 0. Punctuation and white space never count.

    Case counts only if `case_sensitive`.
    """
    normalised = {normalise(reference, case_sensitive) for reference in references}
    return float(normalise(answer, case_sensitive) in normalised)


def exact_match_impossible(beginning: str, references: Sequence[str], case_sensitive: bool = False) -> bool:
    """True if no answer with this beginning can match, so that decoding may stop."""
    given = _characters(beginning, case_sensitive)
    wanted = [_characters(reference, case_sensitive) for reference in references]
    return all(wanted) and not any(reference.startswith(given) for reference in wanted)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Best ROUGE-L F-measure over the references, 0..1 (Lin 2004; Google's implementation,
    stemmed).
    """
    return max(float(_scorer().score(reference, answer)["rougeL"].fmeasure) for reference in references)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "rougeL": rouge_l}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% percentile-bootstrap interval over n values.

    In tables the values are those of tasks, not of samples: a claim generalises over tasks.
    """

    mean: float
    low: float
    high: float
    n: int


def bootstrap(
    values: Sequence[float], seed: int = 0, resamples: int = 10_000, weights: Sequence[float] | None = None
) -> Interval:
    """Bootstrap the mean of values. One seed draws the same indices for every table.

    Args:
        values: at least one.
        seed: of the resampling.
        resamples: number of resamples.
        weights: positive weights of the mean; None: all equal. Ratios weighted by their
            denominators give the ratio of the sums.
    """
    data = np.asarray(values, dtype=np.float64)  # [n]
    weight = np.ones_like(data) if weights is None else np.asarray(weights, dtype=np.float64)  # [n]
    indices = np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))  # [resamples, n]
    means = np.average(data[indices], axis=1, weights=weight[indices])  # [resamples]
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(np.average(data, weights=weight)), float(low), float(high), len(data))


def normalise(text: str, case_sensitive: bool = False) -> str:
    """The form in which `exact_match` compares texts."""
    text = text if case_sensitive else text.lower()
    plain = text.translate(_NO_PUNCTUATION)
    # Without its punctuation, a text of nothing else would be empty and match any other such text.
    return " ".join((plain if plain.strip() else text).split())


def _characters(text: str, case_sensitive: bool) -> str:
    """Normalised text without spaces. A partly decoded character at the end is dropped."""
    text = text.rstrip("\ufffd")
    return "".join((text if case_sensitive else text.lower()).translate(_NO_PUNCTUATION).split())


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
