"""vLLM's own metrics, without the one whose labels grow with every adapter."""

from __future__ import annotations

from typing import Any


def stat_logger() -> type[Any]:
    """vLLM's Prometheus logger, less `vllm:lora_requests_info`.

    That gauge keeps one time series per set of adapters that ever ran together, named
    by adapter: without bound here, and no business of whoever scrapes.
    """
    from prometheus_client import REGISTRY
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class BoundedStatLogger(PrometheusStatLogger):  # type: ignore[misc]
        gauge_lora_info: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.gauge_lora_info is not None:
                REGISTRY.unregister(self.gauge_lora_info)
                self.gauge_lora_info = None

    return BoundedStatLogger
