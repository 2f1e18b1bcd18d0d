"""`POST /v1/generate`: a completion, in one response or streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from uuid import uuid4

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from server.api.json_route import JsonRoute
from server.api.openapi import error_responses
from server.api.schemas import (
    AdapterUsed,
    FinalChunk,
    GenerateRequest,
    Generation,
    GenerationChunk,
    TimingsOut,
    Usage,
)
from server.api.state import ServiceDep, StateDep
from server.api.streaming import EventStream, cancel_on_disconnect
from server.errors import ServiceError
from server.prompts import Prompt
from server.service import GenerationRequest, GenerationResult

router = APIRouter(tags=["generate"], route_class=JsonRoute)


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The fields that all events of one generation share."""

    id: str
    created: int
    model: str


@router.post(
    "/v1/generate",
    response_model=Generation,
    responses={
        200: {
            "description": "The completion. With `stream`, server-sent events: pieces of text, then all fields "
            "of the completion, then `[DONE]`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **error_responses(400, 408, 413, 415, 429, 500, 503),
    },
)
async def generate(body: GenerateRequest, request: Request, service: ServiceDep, state: StateDep) -> Response:
    """Complete a prompt with the base model, specialised by a task description.

    The first request with a description generates its adapter. Later requests reuse it. Without a
    description the base model answers.
    """
    metadata = _Metadata(f"gen-{uuid4().hex}", int(time.time()), service.model)
    pieces = service.generate(_to_service_request(metadata.id, body))
    if not body.stream:
        async with cancel_on_disconnect(request.receive), aclosing(pieces):
            async for piece in pieces:
                result = piece
        assert isinstance(result, GenerationResult)
        return Response(
            Generation.model_validate(_response_fields(metadata, result)).model_dump_json(),
            media_type="application/json",
        )

    # Before the first piece, an error can still have its own HTTP status.
    async with cancel_on_disconnect(request.receive):
        first = await anext(pieces)

    def count(error: ServiceError) -> None:
        state.metrics.rejections.labels(error.code).inc()

    return EventStream(_events(metadata, first, pieces), count)


async def _events(
    metadata: _Metadata, first: str | GenerationResult, rest: AsyncGenerator[str | GenerationResult]
) -> AsyncGenerator[BaseModel]:
    async with aclosing(rest):
        for event in _event(metadata, first):
            yield event
        async for piece in rest:
            for event in _event(metadata, piece):
                yield event


def _event(metadata: _Metadata, piece: str | GenerationResult) -> list[BaseModel]:
    if isinstance(piece, GenerationResult):
        return [FinalChunk.model_validate(_response_fields(metadata, piece))]
    return [GenerationChunk(**asdict(metadata), delta=piece)] if piece else []


def _to_service_request(generation_id: str, body: GenerateRequest) -> GenerationRequest:
    messages = None if body.messages is None else [message.model_dump() for message in body.messages]
    return GenerationRequest(
        id=generation_id,
        task_description=body.task_description or "",
        prompt=Prompt(body.prompt, messages, body.raw),
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=tuple(body.stop or ()),
        seed=body.seed,
    )


def _response_fields(metadata: _Metadata, result: GenerationResult) -> dict[str, object]:
    used = None
    if result.adapter_id is not None and result.source is not None and result.description is not None:
        checked = AdapterUsed.fields(result.description)
        used = AdapterUsed(id=result.adapter_id, source=result.source, **checked)
    return {
        **asdict(metadata),
        "completion": result.completion,
        "finish_reason": result.finish_reason,
        "adapter": used,
        "usage": Usage(
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            total_tokens=result.prompt_tokens + result.completion_tokens,
        ),
        "timings": TimingsOut(**asdict(result.timings)),
    }
