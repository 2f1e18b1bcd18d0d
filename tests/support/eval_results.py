"""A small evaluation result, whose fields a test may replace."""

from __future__ import annotations

from hypernet.evaluation.results import EvalResult


def make_result(**fields: object) -> EvalResult:
    """A result of two samples under `matched`."""
    values: dict[str, object] = {
        "task": "t",
        "condition": "matched",
        "system": "s",
        "metric": "exact_match",
        "base": "b",
        "seed": 0,
        "n": 2,
        "score": 0.5,
        "nll": 1.5,
        "wording_scores": [0.5],
        "scores": [[0.0, 1.0]],
        "nlls": [[1.0, 2.0]],
        "answers": [["", "é"]],
    }
    return EvalResult.model_validate(values | fields)
