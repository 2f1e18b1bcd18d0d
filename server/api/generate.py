"""`POST /v1/generate`: a completion, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from uuid import uuid4

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from server.api.openapi import refusals
from server.api.schemas import (
    AdapterUsed,
    GenerateRequest,
    Generation,
    GenerationChunk,
    LastChunk,
    TimingsOut,
    Usage,
)
from server.api.state import ServiceDep, StateDep
from server.api.streaming import EventStream, while_client_listens
from server.errors import ServiceError
from server.prompts import Prompt
from server.service import Answer, Ask

router = APIRouter(tags=["generate"])


@dataclass(frozen=True, slots=True)
class _Head:
    """What every event of one generation repeats."""

    id: str
    created: int
    model: str


@router.post(
    "/v1/generate",
    response_model=Generation,
    responses={
        200: {
            "description": "The completion. With `stream`, events: pieces, the whole answer, `[DONE]`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **refusals(400, 408, 413, 429, 500, 503),
    },
)
async def generate(body: GenerateRequest, request: Request, service: ServiceDep, state: StateDep) -> Response:
    """Answer a prompt with the base model as specialised by a task description.

    The adapter for a description is made on first use, in the same request, and
    kept. Without a description the base model answers.
    """
    head = _Head(f"gen-{uuid4().hex}", int(time.time()), service.model)
    pieces = service.generate(_ask(head.id, body))
    if not body.stream:
        async with while_client_listens(request.receive), aclosing(pieces):
            async for piece in pieces:
                answer = piece
        assert isinstance(answer, Answer)
        return Response(
            Generation.model_validate(_fields(head, answer)).model_dump_json(), media_type="application/json"
        )

    # Until there is a first piece, an error can still have its own HTTP status.
    async with while_client_listens(request.receive):
        first = await anext(pieces)

    def count(error: ServiceError) -> None:
        state.metrics.rejections.labels(error.code).inc()

    return EventStream(_events(head, first, pieces), count)


async def _events(
    head: _Head, first: str | Answer, rest: AsyncGenerator[str | Answer]
) -> AsyncGenerator[BaseModel]:
    async with aclosing(rest):
        for event in _event(head, first):
            yield event
        async for piece in rest:
            for event in _event(head, piece):
                yield event


def _event(head: _Head, piece: str | Answer) -> list[BaseModel]:
    if isinstance(piece, Answer):
        return [LastChunk.model_validate(_fields(head, piece))]
    return [GenerationChunk(**asdict(head), delta=piece)] if piece else []


def _ask(generation_id: str, body: GenerateRequest) -> Ask:
    messages = None if body.messages is None else [message.model_dump() for message in body.messages]
    return Ask(
        id=generation_id,
        task_description=body.task_description or "",
        prompt=Prompt(body.prompt, messages, body.raw),
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=tuple(body.stop or ()),
        seed=body.seed,
    )


def _fields(head: _Head, answer: Answer) -> dict[str, object]:
    used = None
    if answer.adapter_id is not None and answer.source is not None:
        used = AdapterUsed(id=answer.adapter_id, source=answer.source)
    return {
        **asdict(head),
        "completion": answer.completion,
        "finish_reason": answer.finish_reason,
        "adapter": used,
        "usage": Usage(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            total_tokens=answer.prompt_tokens + answer.completion_tokens,
        ),
        "timings": TimingsOut(**asdict(answer.timings)),
    }
