"""The lifespan's state, typed, and the dependencies that give it to routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

from fastapi import Depends, Request

from server.errors import UnavailableError
from server.lifecycle import Lifecycle
from server.observability.metrics import Metrics
from server.service import Service


@dataclass(slots=True)
class AppState:
    """The running server. `service` is None until the models are loaded."""

    lifecycle: Lifecycle
    metrics: Metrics
    service: Service | None = None


class LifespanState(TypedDict):
    """What the lifespan yields: Starlette copies it into each request's state."""

    t2l: AppState


def get_app_state(request: Request) -> AppState:
    """The server's state."""
    state: AppState = request.state.t2l
    return state


def get_service(request: Request) -> Service:
    """The service.

    Raises:
        UnavailableError: the models are still loading, or could not be loaded.
    """
    state = get_app_state(request)
    if state.service is None:
        state.lifecycle.check_accepting()
        raise UnavailableError("the server is still loading its models", code="starting")
    return state.service


StateDep = Annotated[AppState, Depends(get_app_state)]
ServiceDep = Annotated[Service, Depends(get_service)]
