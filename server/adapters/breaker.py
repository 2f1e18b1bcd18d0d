"""Stops calls to a dependency that fails repeatedly, so that its failures delay no request."""

from __future__ import annotations

from collections.abc import Callable


class CircuitBreaker:
    """Closed while calls succeed, open after consecutive failures.

    While open: one probe per cooldown.
    """

    def __init__(self, *, failures: int, cooldown_s: float, clock: Callable[[], float]) -> None:
        """Create a closed breaker.

        Args:
            failures: number of consecutive failures that open it.
            cooldown_s: seconds between the probes of an open breaker.
            clock: monotonic seconds.
        """
        self._threshold = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are blocked."""
        return self._failures >= self._threshold

    @property
    def healthy(self) -> bool:
        """Whether the last call succeeded (or none was made yet)."""
        return self._failures == 0

    def allow(self) -> bool:
        """Whether to make a call now.

        True from an open breaker allows the one probe of this cooldown.
        """
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._cooldown_s
        return True

    def succeeded(self) -> None:
        """Record a successful call, which closes the breaker."""
        self._failures = 0

    def failed(self) -> None:
        """Record a failed call."""
        self._failures += 1
        if self.is_open:
            self._retry_at = self._clock() + self._cooldown_s
