"""Stops asking a dependency that keeps failing, so that its trouble costs no request any time."""

from __future__ import annotations

from collections.abc import Callable


class CircuitBreaker:
    """Closed while calls succeed; open after some failures in a row; one probe per cooldown while open."""

    def __init__(self, *, failures: int, cooldown_s: float, clock: Callable[[], float]) -> None:
        """Make a closed breaker.

        Args:
            failures: this many in a row open it.
            cooldown_s: while open, one call is let through each time this has passed.
            clock: monotonic seconds.
        """
        self._threshold = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are being held back."""
        return self._failures >= self._threshold

    @property
    def healthy(self) -> bool:
        """Whether the last call succeeded (or none was made yet)."""
        return self._failures == 0

    def allow(self) -> bool:
        """Whether to make a call now. While open, a True is the one probe of this cooldown."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._cooldown_s
        return True

    def succeeded(self) -> None:
        """A call went well: close."""
        self._failures = 0

    def failed(self) -> None:
        """A call went wrong."""
        self._failures += 1
        if self.is_open:
            self._retry_at = self._clock() + self._cooldown_s
