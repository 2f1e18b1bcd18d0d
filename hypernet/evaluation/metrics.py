"""Scores of answers, and how sure one may be of their mean."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, references: Sequence[str], case_sensitive: bool = False) -> float:
    """1 if the answer is one of the references, up to punctuation, white space and case."""
    return float(
        normalise(answer, case_sensitive) in {normalise(reference, case_sensitive) for reference in references}
    )


def exact_match_impossible(beginning: str, references: Sequence[str], case_sensitive: bool = False) -> bool:
    """True if no answer that begins so can match: one need not hear it out."""
    said = _letters(beginning, case_sensitive)
    wanted = [_letters(reference, case_sensitive) for reference in references]
    return all(wanted) and not any(reference.startswith(said) for reference in wanted)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Best ROUGE-L F-measure against the references (Lin 2004; Google's implementation, stemmed). 0..1."""
    return max(float(_scorer().score(reference, answer)["rougeL"].fmeasure) for reference in references)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "rougeL": rouge_l}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% percentile-bootstrap interval over n values.

    In tables these are tasks, not questions: tasks are what one wants to generalise to.
    """

    mean: float
    low: float
    high: float
    n: int


def bootstrap(
    values: Sequence[float], seed: int = 0, resamples: int = 10_000, weights: Sequence[float] | None = None
) -> Interval:
    """Mean of values, resampled with replacement. The same seed draws the same places for every table.

    With weights, which must be positive, it is the weighted mean: of ratios weighted by what
    they are divided by, the ratio of the sums.
    """
    found = np.asarray(values, dtype=np.float64)
    heavy = np.ones_like(found) if weights is None else np.asarray(weights, dtype=np.float64)
    places = np.random.default_rng(seed).integers(len(found), size=(resamples, len(found)))
    low, high = np.quantile(np.average(found[places], axis=1, weights=heavy[places]), (0.025, 0.975))
    return Interval(float(np.average(found, weights=heavy)), float(low), float(high), len(found))


def normalise(text: str, case_sensitive: bool = False) -> str:
    """What `exact_match` compares."""
    text = text if case_sensitive else text.lower()
    plain = text.translate(_NO_PUNCTUATION)
    # An answer that is all punctuation would vanish; compare it as it is.
    return " ".join((plain if plain.strip() else text).split())


def _letters(text: str, case_sensitive: bool) -> str:
    """What `normalise` gives, without the spaces, and without half a character at the end."""
    text = text.rstrip("\ufffd")
    return "".join((text if case_sensitive else text.lower()).translate(_NO_PUNCTUATION).split())


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
