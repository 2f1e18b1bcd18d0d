"""Every number that the server shows on `/metrics`, in one place.

One registry per app, so that two apps in one process (tests) do not share
counters. Labels come from small fixed sets: route templates, error codes,
tiers. Never a description, an adapter id or a path that a client chose.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The server's own metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "t2l_requests", "HTTP requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = self._histogram(
            "t2l_request_seconds",
            "From a request's arrival to the last byte of its answer.",
            ["method", "route"],
        )
        self.in_flight = Gauge(
            "t2l_requests_in_flight", "HTTP requests being answered.", registry=self.registry
        )
        self.stage_seconds = self._histogram(
            "t2l_stage_seconds",
            "Where a generation's time goes: queue, embed, generate, register, first_token, total.",
            ["stage"],
        )
        self.tokens = Counter("t2l_tokens", "Tokens read and written.", ["kind"], registry=self.registry)
        self.rejections = Counter(
            "t2l_rejections", "Requests that got an error, by its code.", ["reason"], registry=self.registry
        )
        self.batch_size = Histogram(
            "t2l_batch_size", "Descriptions per hypernetwork pass.", buckets=_SIZES, registry=self.registry
        )
        self.batch_wait = self._histogram(
            "t2l_batch_wait_seconds", "A description's wait for its batch to start."
        )
        self.batch_depth = self._gauge("t2l_batch_queue_depth", "Descriptions waiting for a batch.")
        self.lookups = Counter(
            "t2l_cache_lookups",
            "Adapter lookups by tier and outcome: hit, miss, corrupt, timeout, error, skipped (breaker open).",
            ["tier", "outcome"],
            registry=self.registry,
        )
        self.writes = Counter(
            "t2l_cache_writes",
            "Adapters written behind to Redis, by outcome: ok, timeout, error, skipped, too_large, dropped.",
            ["outcome"],
            registry=self.registry,
        )
        self.write_queue = self._gauge("t2l_cache_write_queue_bytes", "Bytes waiting to be written to Redis.")
        self.breaker_open = self._gauge("t2l_redis_breaker_open", "1 while Redis is not being asked.")
        self.adapters_generated = Counter(
            "t2l_adapters_made", "Adapters that the hypernetwork wrote.", registry=self.registry
        )
        self.resident = Gauge(
            "t2l_adapters_resident", "Adapters held, by tier: memory, engine.", ["tier"], registry=self.registry
        )
        self.resident_bytes = self._gauge("t2l_adapters_resident_bytes", "Bytes of adapters held in memory.")
        self.build = Gauge(
            "t2l_build_info", "Always 1; what is running.", ["version", "model", "vllm"], registry=self.registry
        )

    def _histogram(self, name: str, text: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(name, text, labels or [], buckets=_SECONDS, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def read_on_scrape(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Have a gauge read its value at each scrape, instead of being told of every change."""
        gauge.set_function(read)

    def render(self) -> bytes:
        """The text exposition: ours, then what libraries in this process registered (vLLM, Python)."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)


def package_version(*names: str) -> str:
    """Version of the first of these distributions that is installed; "none" without one."""
    for name in names:
        try:
            return version(name)
        except ModuleNotFoundError:
            continue
    return "none"
