"""`/v1/adapters`: create, list, get, export and delete adapters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from server.api.json_route import JsonRoute
from server.api.openapi import error_responses
from server.api.schemas import (
    AdapterOut,
    AdapterPage,
    CreateAdapterRequest,
    CreatedAdapter,
    ListAdaptersQuery,
    SpecOut,
)
from server.api.state import ServiceDep
from server.api.streaming import cancel_on_disconnect
from server.errors import InvalidRequestError
from server.service import AdapterInfo

router = APIRouter(prefix="/v1/adapters", tags=["adapters"], route_class=JsonRoute)

AdapterId = Annotated[
    str, Path(pattern="^[0-9a-f]{32}$", description="The adapter's id: 32 hexadecimal digits.")
]


@router.post(
    "",
    status_code=201,
    response_description="The adapter was created.",
    responses={
        200: {"model": CreatedAdapter, "description": "The adapter existed already."},
        **error_responses(400, 408, 413, 415, 429, 500, 503),
    },
)
async def create_adapter(
    body: CreateAdapterRequest, request: Request, response: Response, service: ServiceDep
) -> CreatedAdapter:
    """Create the adapter for a task description ahead of its first use.

    The response is 201 if the adapter was created and 200 if it existed.
    """
    async with cancel_on_disconnect(request.receive):
        result = await service.create_adapter(body.task_description)
    response.status_code = 201 if result.source == "generated" else 200
    response.headers["location"] = f"/v1/adapters/{result.info.id}"
    checked = CreatedAdapter.fields(result.description)
    return CreatedAdapter(**_to_response(result.info).model_dump(), source=result.source, **checked)


@router.get("", responses=error_responses(400, 429, 503))
async def list_adapters(service: ServiceDep, query: Annotated[ListAdaptersQuery, Query()]) -> AdapterPage:
    """List the adapters in memory and in Redis, newest first."""
    found = await service.list_adapters(query.limit, _parse_cursor(query.after))
    last = found.adapters[-1] if len(found.adapters) == query.limit else None
    return AdapterPage(
        data=[_to_response(info) for info in found.adapters],
        next=f"{last.created_us}.{last.id}" if last else None,
        complete=found.complete,
    )


@router.get("/{adapter_id}", responses=error_responses(400, 404, 429, 503))
async def get_adapter(adapter_id: AdapterId, service: ServiceDep) -> AdapterOut:
    """Get one adapter's description, size and shape."""
    return _to_response(await service.get_adapter(adapter_id))


@router.get(
    "/{adapter_id}/export",
    response_class=Response,
    responses={
        200: {
            "description": "A zip file with `adapter_config.json` and `adapter_model.safetensors`. PEFT and "
            "vLLM load the unpacked folder.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **error_responses(400, 404, 429, 503),
    },
)
async def export_adapter(adapter_id: AdapterId, service: ServiceDep) -> Response:
    """Download an adapter as a zipped PEFT adapter folder."""
    archive = await service.export_adapter(adapter_id)
    headers = {"content-disposition": f'attachment; filename="t2l-{adapter_id}.zip"'}
    return Response(archive, media_type="application/zip", headers=headers)


@router.delete("/{adapter_id}", status_code=204, responses=error_responses(400, 404, 503))
async def delete_adapter(adapter_id: AdapterId, service: ServiceDep) -> None:
    """Delete an adapter from this server and from Redis.

    Other replicas may keep it in memory until their caches evict it.
    """
    await service.delete_adapter(adapter_id)


def _parse_cursor(after: str | None) -> tuple[int, str] | None:
    if after is None:
        return None
    created, _, adapter_id = after.partition(".")
    if not (created.isascii() and created.isdigit() and len(created) <= 18 and adapter_id):
        raise InvalidRequestError("after must be the `next` of a page of adapters", param="after")
    return int(created), adapter_id


def _to_response(info: AdapterInfo) -> AdapterOut:
    return AdapterOut(
        id=info.id,
        created=info.created_us // 1_000_000,
        task_description=info.description,
        nbytes=info.nbytes,
        spec=SpecOut.model_validate(info.spec.model_dump()),
    )
