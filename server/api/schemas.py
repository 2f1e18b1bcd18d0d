"""Requests and answers as JSON. Strict: a field we do not know, or of another type, is refused by name."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_DESCRIPTION = 8192
"""Characters in a task description."""

_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


class StrictModel(BaseModel):
    """A strict request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _check_text(text: str) -> str:
    """JSON can spell what no text holds: halves of surrogate pairs; and NUL, which no text needs."""
    if _NOT_TEXT.search(text):
        raise PydanticCustomError("not_text", "Must not hold NUL characters or unpaired surrogates")
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_check_text)]
StopSequences = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=256)]],
    BeforeValidator(_as_list),
    Field(max_length=4),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1, "maxLength": 256}},
            ]
        }
    ),
]


class Message(StrictModel):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Text


class GenerateRequest(StrictModel):
    """What to answer, and for which task."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_description": "Given an English word, answer with a word of opposite meaning.",
                    "prompt": "hot",
                    "max_tokens": 16,
                }
            ]
        }
    )

    task_description: Text | None = Field(
        None,
        max_length=MAX_DESCRIPTION,
        description="The task in one or a few sentences. Empty or absent: the base model answers.",
    )
    prompt: Text | None = Field(None, min_length=1, description="The user's turn. Either this or `messages`.")
    messages: list[Message] | None = Field(None, min_length=1, description="A chat. Either this or `prompt`.")
    raw: bool = Field(False, description="Give `prompt` to the model as it is, without the chat template.")
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens to write. Default: 256, or what the context still holds."
    )
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    stop: StopSequences | None = Field(
        None, description="Up to 4 strings that end the completion; not part of it."
    )
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool = Field(False, description="Answer with server-sent events.")

    @model_validator(mode="after")
    def _check_prompt_or_messages(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError(
                "one_prompt", "Give exactly one of prompt and messages", {"param": "prompt"}
            )
        if self.raw and self.messages is not None:
            raise PydanticCustomError("raw_messages", "Messages always use the chat template", {"param": "raw"})
        return self


class CreateAdapterRequest(StrictModel):
    """The task to make an adapter for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"task_description": "Translate the English sentence to French."}]}
    )

    task_description: Text = Field(min_length=1, max_length=MAX_DESCRIPTION)


class AdapterUsed(BaseModel):
    """The adapter that a completion was made with."""

    id: str
    source: Literal["memory", "redis", "generated"]


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TimingsOut(BaseModel):
    """Seconds. The first three are 0 unless the adapter was made; the last two count from the arrival."""

    queue_s: float = Field(description="Waiting for the batch that made the adapter.")
    embed_s: float = Field(description="Embedding that batch's descriptions.")
    generate_s: float = Field(description="The hypernetwork's pass over that batch.")
    register_s: float = Field(description="Until the engine held the adapter.")
    first_token_s: float
    total_s: float


class Generation(BaseModel):
    """A finished completion."""

    id: str
    object: Literal["generation"] = "generation"
    created: int = Field(description="Seconds since the epoch.")
    model: str
    completion: str
    finish_reason: Literal["stop", "length"]
    adapter: AdapterUsed | None = Field(description="Null: the base model answered.")
    usage: Usage
    timings: TimingsOut


class GenerationChunk(BaseModel):
    """A piece of a streamed completion."""

    id: str
    object: Literal["generation.chunk"] = "generation.chunk"
    created: int
    model: str
    delta: str


class FinalChunk(Generation):
    """The last event before `[DONE]`: no new text, and every field of an answer."""

    delta: Literal[""] = ""


class ModuleOut(BaseModel):
    """One kind of linear layer that an adapter changes."""

    path: str
    in_features: int
    out_features: int


class SpecOut(BaseModel):
    """Shape and scale of an adapter."""

    rank: int
    alpha: float
    use_rslora: bool
    num_layers: int
    modules: list[ModuleOut]


class AdapterOut(BaseModel):
    """An adapter."""

    id: str
    object: Literal["adapter"] = "adapter"
    created: int = Field(description="Seconds since the epoch.")
    task_description: str = Field(description="Normalised: Unicode NFC, single spaces.")
    nbytes: int = Field(description="Bytes of its weights.")
    spec: SpecOut


class CreatedAdapter(AdapterOut):
    """An adapter, and where it was found."""

    source: Literal["memory", "redis", "generated"]


class AdapterPage(BaseModel):
    """Adapters, newest first."""

    object: Literal["list"] = "list"
    data: list[AdapterOut]
    next: str | None = Field(description="Give it as `after` to get the next page; null on the last one.")
    complete: bool = Field(description="False when Redis could not be asked.")


class Health(BaseModel):
    """The process and its engine are alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The server takes requests. Degraded: they succeed, but something is wrong."""

    status: Literal["ok", "degraded"]
    reasons: list[str]
    in_flight: int
    engine: dict[str, Any]


class ErrorDetail(BaseModel):
    """What is wrong, where, and how to mend it."""

    message: str
    type: str
    param: str | None = Field(description="The field that is wrong.")
    code: str


class ErrorOut(BaseModel):
    """Every error has this shape."""

    error: ErrorDetail
