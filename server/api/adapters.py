"""`/v1/adapters`: make, list, describe, take away and delete adapters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from server.api.openapi import refusals
from server.api.schemas import AdapterMade, AdapterOut, AdapterPage, MakeRequest, SpecOut
from server.api.state import ServiceDep
from server.api.streaming import while_client_listens
from server.errors import InvalidRequestError
from server.service import AdapterInfo

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

AdapterId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hex characters.")]


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": AdapterMade, "description": "It was there."},
        **refusals(400, 408, 413, 429, 500, 503),
    },
)
async def make(body: MakeRequest, request: Request, response: Response, service: ServiceDep) -> AdapterMade:
    """Make an adapter ahead of use: 201 if it was made, 200 if there was one."""
    async with while_client_listens(request.receive):
        info, source = await service.make(body.task_description)
    response.status_code = 201 if source == "generated" else 200
    response.headers["location"] = f"/v1/adapters/{info.id}"
    return AdapterMade(**_out(info).model_dump(), source=source)


@router.get("", responses=refusals(400, 429, 503))
async def page(
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> AdapterPage:
    """Adapters that memory or Redis hold, newest first."""
    found = await service.page(limit, _cursor(after))
    last = found.adapters[-1] if len(found.adapters) == limit else None
    return AdapterPage(
        data=[_out(info) for info in found.adapters],
        next=f"{last.created_us}.{last.id}" if last else None,
        complete=found.complete,
    )


@router.get("/{adapter_id}", responses=refusals(400, 404, 429, 503))
async def describe(adapter_id: AdapterId, service: ServiceDep) -> AdapterOut:
    """One adapter."""
    return _out(await service.describe(adapter_id))


@router.get(
    "/{adapter_id}/export",
    response_class=Response,
    responses={
        200: {
            "description": "A zip of `adapter_config.json` and `adapter_model.safetensors`, for PEFT or vLLM.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **refusals(400, 404, 429, 503),
    },
)
async def export(adapter_id: AdapterId, service: ServiceDep) -> Response:
    """Take an adapter away as a PEFT adapter folder, zipped."""
    archive = await service.export(adapter_id)
    headers = {"content-disposition": f'attachment; filename="t2l-{adapter_id}.zip"'}
    return Response(archive, media_type="application/zip", headers=headers)


@router.delete("/{adapter_id}", status_code=204, responses=refusals(400, 404, 503))
async def delete(adapter_id: AdapterId, service: ServiceDep) -> None:
    """Delete an adapter here and in Redis; other replicas may hold it in memory until it leaves their cache."""
    await service.delete(adapter_id)


def _cursor(after: str | None) -> tuple[int, str] | None:
    if after is None:
        return None
    created, _, adapter_id = after.partition(".")
    if not (created.isascii() and created.isdigit() and len(created) <= 18 and adapter_id):
        raise InvalidRequestError("after: not a `next` of any page", param="after")
    return int(created), adapter_id


def _out(info: AdapterInfo) -> AdapterOut:
    return AdapterOut(
        id=info.id,
        created=info.created_us // 1_000_000,
        task_description=info.description,
        nbytes=info.nbytes,
        spec=SpecOut.model_validate(info.spec.model_dump()),
    )
