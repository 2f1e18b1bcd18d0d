"""Serves `/v1/generate/` as `/v1/generate`.

A redirect would be less reliable. Many clients do not follow it for POST, and its address is wrong
behind a proxy that terminates TLS.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class TrailingSlash:
    """Pure ASGI middleware that drops slashes at the end of a path, of every route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["path"].endswith("/"):
            # In place: the outer middleware reads the route that routing leaves in this very scope.
            scope["path"] = scope["path"].rstrip("/") or "/"
        await self._app(scope, receive, send)
