"""Errors of the analyses."""

from __future__ import annotations

from hypernet.errors import T2lError


class TooFewTasksError(T2lError):
    """The task file holds fewer tasks than the analysis needs."""
