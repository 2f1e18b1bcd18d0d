"""Sends one streamed request to `/v1/generate` and records its timing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(slots=True)
class RequestRecord:
    """Timing and outcome of one request. Times are in seconds of the caller's clock."""

    scheduled_at: float
    """Scheduled sending time. A delay in a busy client counts as latency."""
    chunk_times: list[float] = field(default_factory=list)
    """Arrival time of each chunk of the completion."""
    end: float = 0.0
    """Time of the last event."""
    tokens: int | None = None
    """Completion tokens. None before the last event."""
    source: str = "base"
    """Source of the adapter: memory, redis or generated. base: no adapter."""
    error: str | None = None
    """Error code. None: the request succeeded."""

    @property
    def time_to_first_token(self) -> float:
        """Seconds to the first chunk."""
        return self.chunk_times[0] - self.scheduled_at

    @property
    def inter_token_latencies(self) -> list[float]:
        """Seconds between consecutive chunks."""
        return [b - a for a, b in zip(self.chunk_times, self.chunk_times[1:], strict=False)]

    @property
    def total_latency(self) -> float:
        """Seconds to the end of the response."""
        return self.end - self.scheduled_at


async def send_request(
    http: httpx.AsyncClient, body: dict[str, Any], clock: Callable[[], float], scheduled_at: float | None = None
) -> RequestRecord:
    """Send a streaming request and read it to its end. Errors of the server are recorded, not
    raised.

    Args:
        http: a client with the server's base URL.
        body: JSON body for `/v1/generate`, without `stream`.
        clock: monotonic seconds.
        scheduled_at: scheduled sending time. None: now.
    """
    record = RequestRecord(clock() if scheduled_at is None else scheduled_at)
    try:
        async with http.stream("POST", "/v1/generate", json=body | {"stream": True}) as response:
            if response.status_code != 200:
                record.error = _code(await response.aread(), f"http_{response.status_code}")
            else:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        _read(json.loads(line.removeprefix("data: ")), record, clock)
    except httpx.HTTPError as error:
        record.error = type(error).__name__
    except (ValueError, KeyError, TypeError):
        record.error = "bad_event"
    record.end = clock()
    if record.error is None and record.tokens is None:
        record.error = "cut_off"
    return record


def _read(event: dict[str, Any], record: RequestRecord, clock: Callable[[], float]) -> None:
    if "error" in event:
        record.error = str(event["error"]["code"])
    elif "usage" in event:
        record.tokens = event["usage"]["completion_tokens"]
        record.source = event["adapter"]["source"] if event["adapter"] else "base"
        # A completion without text has no chunk before its last event.
        record.chunk_times = record.chunk_times or [clock()]
    else:
        record.chunk_times.append(clock())


def _code(body: bytes, default: str) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return default
