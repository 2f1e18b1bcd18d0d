"""`/v1/adapters`: make, list, describe, take away and delete adapters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from server.api.openapi import error_responses
from server.api.schemas import AdapterOut, AdapterPage, CreateAdapterRequest, CreatedAdapter, SpecOut
from server.api.state import ServiceDep
from server.api.streaming import cancel_on_disconnect
from server.errors import InvalidRequestError
from server.service import AdapterInfo

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

AdapterId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hex characters.")]


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": CreatedAdapter, "description": "It was there."},
        **error_responses(400, 408, 413, 429, 500, 503),
    },
)
async def create_adapter(
    body: CreateAdapterRequest, request: Request, response: Response, service: ServiceDep
) -> CreatedAdapter:
    """Make an adapter ahead of use: 201 if it was made, 200 if there was one."""
    async with cancel_on_disconnect(request.receive):
        info, source = await service.create_adapter(body.task_description)
    response.status_code = 201 if source == "generated" else 200
    response.headers["location"] = f"/v1/adapters/{info.id}"
    return CreatedAdapter(**_to_response(info).model_dump(), source=source)


@router.get("", responses=error_responses(400, 429, 503))
async def list_adapters(
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> AdapterPage:
    """Adapters that memory or Redis hold, newest first."""
    found = await service.list_adapters(limit, _parse_cursor(after))
    last = found.adapters[-1] if len(found.adapters) == limit else None
    return AdapterPage(
        data=[_to_response(info) for info in found.adapters],
        next=f"{last.created_us}.{last.id}" if last else None,
        complete=found.complete,
    )


@router.get("/{adapter_id}", responses=error_responses(400, 404, 429, 503))
async def get_adapter(adapter_id: AdapterId, service: ServiceDep) -> AdapterOut:
    """One adapter."""
    return _to_response(await service.get_adapter(adapter_id))


@router.get(
    "/{adapter_id}/export",
    response_class=Response,
    responses={
        200: {
            "description": "A zip of `adapter_config.json` and `adapter_model.safetensors`, for PEFT or vLLM.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **error_responses(400, 404, 429, 503),
    },
)
async def export_adapter(adapter_id: AdapterId, service: ServiceDep) -> Response:
    """Take an adapter away as a PEFT adapter folder, zipped."""
    archive = await service.export_adapter(adapter_id)
    headers = {"content-disposition": f'attachment; filename="t2l-{adapter_id}.zip"'}
    return Response(archive, media_type="application/zip", headers=headers)


@router.delete("/{adapter_id}", status_code=204, responses=error_responses(400, 404, 503))
async def delete_adapter(adapter_id: AdapterId, service: ServiceDep) -> None:
    """Delete an adapter here and in Redis; other replicas may hold it in memory until it leaves their cache."""
    await service.delete_adapter(adapter_id)


def _parse_cursor(after: str | None) -> tuple[int, str] | None:
    if after is None:
        return None
    created, _, adapter_id = after.partition(".")
    if not (created.isascii() and created.isdigit() and len(created) <= 18 and adapter_id):
        raise InvalidRequestError("after: not a `next` of any page", param="after")
    return int(created), adapter_id


def _to_response(info: AdapterInfo) -> AdapterOut:
    return AdapterOut(
        id=info.id,
        created=info.created_us // 1_000_000,
        task_description=info.description,
        nbytes=info.nbytes,
        spec=SpecOut.model_validate(info.spec.model_dump()),
    )
