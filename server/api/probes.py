"""`/health`, `/ready` and `/metrics`, for orchestrators and monitoring."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from server.api.openapi import error_responses
from server.api.schemas import Health, Readiness
from server.api.state import ServiceDep, StateDep

router = APIRouter(tags=["operations"])


@router.get("/health", responses=error_responses(503))
async def health(state: StateDep) -> Health:
    """Liveness: 200 while the process works, models loading included.

    The response is 503 once the engine has died or could not start.
    """
    if state.lifecycle.phase == "failed":
        state.lifecycle.check_accepting()
    if state.service is not None:
        state.service.check_alive()
    return Health()


@router.get("/ready", responses=error_responses(503))
async def ready(state: StateDep, service: ServiceDep) -> Readiness:
    """Readiness: 200 while the server accepts requests, also with the status `degraded`.

    The response is 503 while the server is starting or draining, and once the engine has died.
    """
    state.lifecycle.check_accepting()
    service.check_alive()
    reasons = await service.degraded_reasons()
    return Readiness(
        status="degraded" if reasons else "ok",
        reasons=reasons,
        in_flight=state.lifecycle.in_flight,
        engine=service.engine_stats(),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}},
)
async def metrics(state: StateDep) -> Response:
    """Metrics of the server, of vLLM and of the Python process, in the Prometheus text format."""
    return Response(await asyncio.to_thread(state.metrics.render), media_type=CONTENT_TYPE_LATEST)
