"""vLLM's own Prometheus metrics, without the one whose labels grow with every adapter."""

from __future__ import annotations

from typing import Any


def stat_logger() -> type[Any]:
    """vLLM's Prometheus logger without the gauge `vllm:lora_requests_info`.

    The gauge keeps one time series for each set of adapters that ever shared a step. Here their
    number is unbounded, and their names are adapter ids, which metrics must not expose.
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
