"""All metrics of the server.

Each app has its own registry, so that two apps in one process (tests) do not share counters. Labels
come from small fixed sets: route templates, error codes, tiers. A label never holds a description,
an adapter id or a path that a client chose.
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
            "t2l_requests", "HTTP requests.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = self._histogram(
            "t2l_request_seconds",
            "Seconds from a request's arrival to the last byte of its response.",
            ["method", "route"],
        )
        self.in_flight = Gauge("t2l_requests_in_flight", "HTTP requests in progress.", registry=self.registry)
        self.stage_seconds = self._histogram(
            "t2l_stage_seconds",
            "Seconds of each stage of a generation: queue, embed, generate, register, first_token, total.",
            ["stage"],
        )
        self.tokens = Counter(
            "t2l_tokens", "Tokens of prompts and completions.", ["kind"], registry=self.registry
        )
        self.rejections = Counter(
            "t2l_rejections", "Requests that got an error, by error code.", ["reason"], registry=self.registry
        )
        self.batch_size = Histogram(
            "t2l_batch_size",
            "Descriptions in one pass of the hypernetwork.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self.batch_wait = self._histogram(
            "t2l_batch_wait_seconds", "Seconds that a description waits for its batch."
        )
        self.batch_depth = self._gauge("t2l_batch_queue_depth", "Descriptions that wait for a batch.")
        self.lookups = Counter(
            "t2l_cache_lookups",
            "Adapter lookups by tier and outcome: hit, miss, corrupt, timeout, error, skipped (breaker open).",
            ["tier", "outcome"],
            registry=self.registry,
        )
        self.writes = Counter(
            "t2l_cache_writes",
            "Adapters written to Redis, by outcome: ok, timeout, error, skipped, too_large, dropped.",
            ["outcome"],
            registry=self.registry,
        )
        self.write_queue = self._gauge("t2l_cache_write_queue_bytes", "Bytes that wait to be written to Redis.")
        self.breaker_open = self._gauge(
            "t2l_redis_breaker_open", "1 while the circuit breaker keeps calls from Redis."
        )
        self.adapters_generated = Counter(
            "t2l_adapters_made", "Adapters that the hypernetwork generated.", registry=self.registry
        )
        self.resident = Gauge(
            "t2l_adapters_resident", "Adapters in each tier: memory, engine.", ["tier"], registry=self.registry
        )
        self.resident_bytes = self._gauge("t2l_adapters_resident_bytes", "Bytes of the adapters in memory.")
        self.build = Gauge(
            "t2l_build_info",
            "Always 1. The labels hold the versions and the model.",
            ["version", "model", "vllm"],
            registry=self.registry,
        )

    def _histogram(self, name: str, text: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(name, text, labels or [], buckets=_SECONDS, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def read_on_scrape(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Have a gauge read its value at each scrape."""
        gauge.set_function(read)

    def render(self) -> bytes:
        """The Prometheus text: the server's metrics, then those of libraries in this process
        (vLLM, Python).
        """
        return generate_latest(self.registry) + generate_latest(REGISTRY)


def package_version(*names: str) -> str:
    """Version of the first installed distribution of these names, or "none"."""
    for name in names:
        try:
            return version(name)
        except ModuleNotFoundError:
            continue
    return "none"
