"""Log lines around steps that take seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logged_step(log: logging.Logger, step: str) -> Iterator[None]:
    """Log the beginning of a step, and its duration in seconds when it has succeeded.

    Args:
        log: the logger of the caller.
        step: what happens, as a phrase: "loading the engine".
    """
    begun = time.monotonic()
    log.info("%s ...", step)
    yield
    log.info("%s took %.1f s", step, time.monotonic() - begun)
