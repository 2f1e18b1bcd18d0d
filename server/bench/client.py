"""One streamed request to `/v1/generate`, and what a stopwatch beside the client sees of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(slots=True)
class Sample:
    """One request's fate. Times in seconds of the caller's clock."""

    due: float
    """When it should have been sent: waiting for a busy client counts as waiting."""
    pieces: list[float] = field(default_factory=list)
    """When each piece of the completion came."""
    end: float = 0.0
    tokens: int | None = None
    """Of the completion; None until its last event."""
    source: str = "base"
    """Where the adapter was: memory, redis, generated; or base."""
    error: str | None = None
    """The code of the error that it got instead."""

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.pieces[0] - self.due

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False)]

    @property
    def whole(self) -> float:
        """Seconds to the end of the answer."""
        return self.end - self.due


async def ask(
    http: httpx.AsyncClient, body: dict[str, Any], clock: Callable[[], float], due: float | None = None
) -> Sample:
    """Send a request with `stream` on and follow it to its end. Never raises for what the server does.

    Args:
        http: a client with the server's base URL.
        body: of `/v1/generate`; `stream` is added.
        clock: monotonic seconds.
        due: when it should have been sent; None is now.
    """
    sample = Sample(clock() if due is None else due)
    try:
        async with http.stream("POST", "/v1/generate", json=body | {"stream": True}) as response:
            if response.status_code != 200:
                sample.error = _code(await response.aread(), f"http_{response.status_code}")
            else:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        _read(json.loads(line.removeprefix("data: ")), sample, clock)
    except httpx.HTTPError as error:
        sample.error = type(error).__name__
    except (ValueError, KeyError, TypeError):
        sample.error = "bad_event"
    sample.end = clock()
    if sample.error is None and sample.tokens is None:
        sample.error = "cut_off"
    return sample


def _read(event: dict[str, Any], sample: Sample, clock: Callable[[], float]) -> None:
    if "error" in event:
        sample.error = str(event["error"]["code"])
    elif "usage" in event:
        sample.tokens = event["usage"]["completion_tokens"]
        sample.source = event["adapter"]["source"] if event["adapter"] else "base"
        # A completion without text has no piece before its last event.
        sample.pieces = sample.pieces or [clock()]
    else:
        sample.pieces.append(clock())


def _code(body: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return otherwise
