"""Limits on what a request may cost."""
