"""`/health`, `/ready` and `/metrics`, for machines that watch."""

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
    """Whether this process is worth keeping: 503 once its engine has died or could not start."""
    if state.lifecycle.phase == "failed":
        state.lifecycle.check_accepting()
    if state.service is not None:
        state.service.check_alive()
    return Health()


@router.get("/ready", responses=error_responses(503))
async def ready(state: StateDep, service: ServiceDep) -> Readiness:
    """Whether to send requests here: 503 while starting, draining or dead. Degraded is still 200."""
    state.lifecycle.check_accepting()
    service.check_alive()
    reasons = await service.degraded_reasons()
    return Readiness(
        status="degraded" if reasons else "ok",
        reasons=reasons,
        in_flight=state.lifecycle.in_flight,
        engine=service.engine_stats(),
    )


@router.get("/metrics", response_class=Response)
async def metrics(state: StateDep) -> Response:
    """Prometheus text: ours, vLLM's and the process's."""
    return Response(await asyncio.to_thread(state.metrics.render), media_type=CONTENT_TYPE_LATEST)
