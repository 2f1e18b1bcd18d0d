"""Numbers of a load: percentiles of what clients waited for, where adapters were, what was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from server.bench.client import Sample

PERCENTILES = (50, 90, 99)
SOURCES = ("base", "memory", "redis", "generated")


def percentile(values: Sequence[float], p: float) -> float:
    """The p-th percentile of some values, linear between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * p / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """A run as plain numbers: times in milliseconds, shares of 1, counts."""
    good = [s for s in samples if s.error is None]
    described = Counter(s.source for s in good if s.source != "base")
    span = max((s.end for s in samples), default=0.0) - min((s.due for s in samples), default=0.0)
    first = {"all": [s.first for s in good]}
    first |= {source: [s.first for s in good if s.source == source] for source in SOURCES}
    return {
        "requests": len(samples),
        "answered": len(good),
        "rejected": dict(Counter(s.error for s in samples if s.error is not None)),
        "seconds": span,
        "tokens_per_second": sum(s.tokens or 0 for s in good) / span if span else 0.0,
        "tiers": {source: n / described.total() for source, n in sorted(described.items())},
        "first_token_ms": {name: _percentiles(v) for name, v in first.items() if v},
        "between_tokens_ms": _percentiles([gap for s in good for gap in s.gaps]),
        "whole_ms": _percentiles([s.whole for s in good]),
    }


def table(summary: dict[str, Any]) -> str:
    """The same as Markdown."""
    rows = {f"first token, {name}": row for name, row in summary["first_token_ms"].items()}
    rows |= {"between tokens": summary["between_tokens_ms"], "whole answer": summary["whole_ms"]}
    tiers = ", ".join(f"{name} {share:.0%}" for name, share in summary["tiers"].items()) or "none asked for"
    refused = ", ".join(f"{code} {n}" for code, n in summary["rejected"].items()) or "none"
    heads = [f"p{p}" for p in PERCENTILES]
    return "\n".join(
        [
            f"{summary['answered']} of {summary['requests']} requests answered in {summary['seconds']:.1f} s, "
            f"{summary['tokens_per_second']:.0f} tokens/s; adapters: {tiers}; rejected: {refused}",
            "",
            f"| ms | {' | '.join(heads)} |",
            "|---|" + "---|" * len(heads),
            *(
                f"| {name} | {' | '.join(f'{row[h]:.0f}' for h in heads)} |"
                for name, row in rows.items()
                if row
            ),
        ]
    )


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{p}": 1e3 * percentile(seconds, p) for p in PERCENTILES} if seconds else {}
