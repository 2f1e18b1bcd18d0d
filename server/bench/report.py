"""Summary of a workload: latency percentiles, sources of adapters, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from server.bench.client import RequestRecord

PERCENTILES = (50, 90, 99)
SOURCES = ("base", "memory", "redis", "generated")


def percentile(values: Sequence[float], p: float) -> float:
    """The p-th percentile, with linear interpolation."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * p / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summarise(records: Sequence[RequestRecord]) -> dict[str, Any]:
    """Summarise a run: times in milliseconds, shares as fractions, counts."""
    succeeded = [s for s in records if s.error is None]
    described = Counter(s.source for s in succeeded if s.source != "base")
    duration = max((s.end for s in records), default=0.0) - min((s.scheduled_at for s in records), default=0.0)
    first = {"all": [s.time_to_first_token for s in succeeded]}
    first |= {source: [s.time_to_first_token for s in succeeded if s.source == source] for source in SOURCES}
    return {
        "requests": len(records),
        "answered": len(succeeded),
        "rejected": dict(Counter(s.error for s in records if s.error is not None)),
        "seconds": duration,
        "tokens_per_second": sum(s.tokens or 0 for s in succeeded) / duration if duration else 0.0,
        "tiers": {source: n / described.total() for source, n in sorted(described.items())},
        "first_token_ms": {name: _percentiles(v) for name, v in first.items() if v},
        "between_tokens_ms": _percentiles([gap for s in succeeded for gap in s.inter_token_latencies]),
        "whole_ms": _percentiles([s.total_latency for s in succeeded]),
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as a Markdown table."""
    rows = {f"first token, {name}": row for name, row in summary["first_token_ms"].items()}
    rows |= {"between tokens": summary["between_tokens_ms"], "whole answer": summary["whole_ms"]}
    tiers = ", ".join(f"{name} {share:.0%}" for name, share in summary["tiers"].items()) or "none"
    errors = ", ".join(f"{code} {n}" for code, n in summary["rejected"].items()) or "none"
    columns = [f"p{p}" for p in PERCENTILES]
    return "\n".join(
        [
            f"{summary['answered']} of {summary['requests']} requests answered in {summary['seconds']:.1f} s, "
            f"{summary['tokens_per_second']:.0f} tokens/s; adapters: {tiers}; rejected: {errors}",
            "",
            f"| ms | {' | '.join(columns)} |",
            "|---|" + "---|" * len(columns),
            *(
                f"| {name} | {' | '.join(f'{row[h]:.0f}' for h in columns)} |"
                for name, row in rows.items()
                if row
            ),
        ]
    )


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{p}": 1e3 * percentile(seconds, p) for p in PERCENTILES} if seconds else {}
