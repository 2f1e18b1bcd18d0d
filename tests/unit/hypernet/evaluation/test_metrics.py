"""Metrics of single answers, and bootstrap intervals."""

from __future__ import annotations

import pytest

from hypernet.evaluation.metrics import bootstrap, exact_match, exact_match_impossible, rouge_l


def test_exact_match_ignores_case_and_punctuation_only() -> None:
    assert exact_match("No", ["No."]) == 1
    assert exact_match(" the  Cat!", ["the cat", "dog"]) == 1
    assert exact_match("cat", ["the cat"]) == 0
    assert exact_match("!", ["?"]) == 0


def test_case_counts_if_case_sensitive() -> None:
    assert exact_match(" Cat!", ["Cat"], case_sensitive=True) == 1
    assert exact_match("cat", ["Cat"], case_sensitive=True) == 0
    assert exact_match_impossible("c", ["Cat"], case_sensitive=True)
    assert not exact_match_impossible("c", ["Cat"])
    assert not exact_match_impossible("C", ["Cat"], case_sensitive=True)


def test_rouge_takes_the_best_reference() -> None:
    assert rouge_l("a red fox", ["something else", "a red fox"]) == 1
    assert 0 < rouge_l("a red fox", ["a blue fox"]) < 1


def test_bootstrap_is_seeded_and_covers_the_mean() -> None:
    values = [0.0, 1.0, 0.5, 0.25, 0.75]
    first = bootstrap(values, seed=3)
    assert first == bootstrap(values, seed=3)
    assert first.low < first.mean < first.high
    assert bootstrap([2.0] * 4).low == bootstrap([2.0] * 4).high == 2.0


def test_ratios_weighted_by_denominators_give_the_ratio_of_sums() -> None:
    above, below = [3.0, 2.0, 0.1], [4.0, 2.0, 0.001]  # the last ratio alone is 100
    interval = bootstrap([a / b for a, b in zip(above, below, strict=True)], weights=below)
    assert interval.mean == pytest.approx(sum(above) / sum(below))
    assert interval.low < interval.mean < interval.high
