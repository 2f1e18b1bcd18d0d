"""JSON bodies of requests and responses.

Requests are strict: an unknown field, a value of another type and a value out of range are refused,
and the error names the field.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
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

from server.service import PreparedDescription
from server.validation_messages import json_type

MAX_DESCRIPTION = 8192
"""Maximum length of a task description, in characters."""

_DESCRIPTION = (
    "The task in one or a few sentences, in English. The encoder reads all of it, up to 2,032 tokens (about "
    "8,000 characters of English) with the bundled encoder. Longer text is refused as `description_too_long`, "
    "text in another script or with many emoji as `description_not_readable`, and text without a visible "
    "character as `empty_description`. Case and accents do not matter to the bundled encoder."
)

_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")

Source = Literal["memory", "redis", "generated"]


class KnownFields(BaseModel):
    """Part of a request. An unknown field is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        """Runs before the fields: for `{"task_desc": ...}` "task_description is missing" would
        mislead.
        """
        unknown = [str(name) for name in values if name not in cls.model_fields] if type(values) is dict else []
        if not unknown:
            return values
        nearest = get_close_matches(unknown[0].lower(), cls.model_fields, n=1, cutoff=0.5)
        known = ", ".join(cls.model_fields)
        hint = f"did you mean {nearest[0]}?" if nearest else f"the fields are {known}"
        raise PydanticCustomError("unknown_field", "{hint}", {"param": unknown[0], "hint": hint})


class StrictModel(KnownFields):
    """JSON request body or an object in one. Values are not converted to another type."""

    model_config = ConfigDict(strict=True)


def _check_text(text: str) -> str:
    """Refuse what JSON can spell and a tokenizer cannot read: NUL,
    and halves of surrogate pairs.
    """
    if _NOT_TEXT.search(text):
        raise PydanticCustomError("not_text", "contains a NUL character or an unpaired surrogate: remove it")
    return text


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise PydanticCustomError(
        "stop_type", "must be a string or a list of strings, not {found}", {"found": json_type(value)}
    )


Text = Annotated[str, AfterValidator(_check_text)]
StopSequences = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=256)]],
    BeforeValidator(_as_list),
    Field(max_length=4),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 256},
                {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1, "maxLength": 256}},
            ]
        }
    ),
]


class Message(StrictModel):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"] = Field(description="Author of the turn.")
    content: Text = Field(description="Text of the turn.")


class GenerateRequest(StrictModel):
    """A prompt and the task that it belongs to."""

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
        description=f"{_DESCRIPTION} Absent, null or the empty string: the base model answers.",
    )
    prompt: Text | None = Field(
        None, min_length=1, description="The user's turn. Send either `prompt` or `messages`."
    )
    messages: list[Message] | None = Field(
        None, min_length=1, description="A chat. Send either `prompt` or `messages`."
    )
    raw: bool = Field(False, description="Whether `prompt` goes to the model without the chat template.")
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="Maximum tokens of the completion. Default: 256, or less if the context is too short.",
    )
    temperature: float = Field(
        0.0, ge=0, le=2, allow_inf_nan=False, description="Sampling temperature. 0: greedy decoding."
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Nucleus sampling: the probability mass of the tokens that may be sampled.",
    )
    stop: StopSequences | None = Field(
        None,
        description="Up to 4 stop sequences of 1 to 256 characters. The completion ends before the first one.",
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="Seed of the sampling. Default: a random one.")
    stream: bool = Field(False, description="Whether to stream the completion as server-sent events.")

    @model_validator(mode="after")
    def _check_prompt_or_messages(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            found = "both" if self.prompt is not None else "neither"
            raise PydanticCustomError(
                "prompt_or_messages",
                "or messages: send one of the two, not {found}",
                {"param": "prompt", "found": found},
            )
        if self.raw and self.messages is not None:
            raise PydanticCustomError(
                "raw_messages",
                "applies to prompt only: messages always use the chat template",
                {"param": "raw"},
            )
        return self


class CreateAdapterRequest(StrictModel):
    """The task to create an adapter for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"task_description": "Translate the English sentence to French."}]}
    )

    task_description: Text = Field(min_length=1, max_length=MAX_DESCRIPTION, description=_DESCRIPTION)


class ListAdaptersQuery(KnownFields):
    """Query parameters of a page of adapters."""

    limit: int = Field(20, ge=1, le=100, description="Maximum adapters on the page.")
    after: str | None = Field(None, description="`next` of the previous page. Absent: the first page.")


class DescriptionWarningOut(BaseModel):
    """A reason why an adapter may not fit its task description."""

    code: Literal["description_partly_unread", "description_language"]
    message: str = Field(description="What was found, and how to change the description.")


class DescriptionCheck(BaseModel):
    """What the encoder reads of a task description."""

    unread: float = Field(
        ge=0,
        le=1,
        description="Share of the description's characters that the encoder does not read: emoji, for example, "
        "and scripts that its vocabulary lacks. Above 0.2 the description is refused.",
    )
    warnings: list[DescriptionWarningOut] = Field(
        description="Reasons why the adapter may not fit the description. Usually empty."
    )

    @staticmethod
    def fields(description: PreparedDescription) -> dict[str, Any]:
        """The fields for a description."""
        warnings = [{"code": w.code, "message": w.message} for w in description.warnings]
        return {"unread": round(description.unread, 4), "warnings": warnings}


class AdapterReference(BaseModel):
    """Which adapter, and where it came from."""

    id: str = Field(description="The adapter's id.")
    source: Source = Field(description="Where the adapter was found, or `generated` if it was new.")


class AdapterUsed(DescriptionCheck, AdapterReference):
    """The adapter of a completion."""


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int = Field(description="Tokens of the prompt, chat template included.")
    completion_tokens: int = Field(description="Tokens of the completion.")
    total_tokens: int = Field(description="Sum of the two.")


class TimingsOut(BaseModel):
    """Durations in seconds. `queue_s`, `embed_s` and `generate_s` are 0 if the adapter existed."""

    queue_s: float = Field(description="Wait for the batch that generated the adapter.")
    embed_s: float = Field(description="Embedding of that batch's descriptions.")
    generate_s: float = Field(description="The hypernetwork's pass over that batch.")
    register_s: float = Field(description="Wait until the engine has loaded the adapter.")
    first_token_s: float = Field(description="From the request's arrival to the first token.")
    total_s: float = Field(description="From the request's arrival to the last token.")


class Generation(BaseModel):
    """A finished completion."""

    id: str = Field(description="Id of this generation.")
    object: Literal["generation"] = "generation"
    created: int = Field(description="Time of the request: Unix time in seconds.")
    model: str = Field(description="Name of the base model.")
    completion: str = Field(description="The text.")
    finish_reason: Literal["stop", "length"] = Field(
        description="`stop`: the model ended or met a stop sequence. `length`: it reached `max_tokens`."
    )
    adapter: AdapterUsed | None = Field(description="The adapter. Null: the base model answered.")
    usage: Usage
    timings: TimingsOut


class GenerationChunk(BaseModel):
    """A piece of a streamed completion."""

    id: str = Field(description="Id of this generation, the same in all its events.")
    object: Literal["generation.chunk"] = "generation.chunk"
    created: int = Field(description="Time of the request: Unix time in seconds.")
    model: str = Field(description="Name of the base model.")
    delta: str = Field(description="The new text.")


class FinalChunk(Generation):
    """The last event before `[DONE]`: all fields of a finished completion, and no new text."""

    delta: Literal[""] = ""


class ModuleOut(BaseModel):
    """A kind of linear layer that an adapter changes, once per transformer layer."""

    path: str = Field(description="The module's path within a transformer layer.")
    in_features: int = Field(description="Input width.")
    out_features: int = Field(description="Output width.")


class SpecOut(BaseModel):
    """Shape and scale of an adapter."""

    rank: int = Field(description="LoRA rank r.")
    alpha: float = Field(description="LoRA alpha.")
    use_rslora: bool = Field(description="Whether the scale is alpha / sqrt(r) instead of alpha / r.")
    num_layers: int = Field(description="Number of transformer layers.")
    modules: list[ModuleOut]


class AdapterOut(BaseModel):
    """An adapter."""

    id: str = Field(description="The adapter's id: 32 hexadecimal digits.")
    object: Literal["adapter"] = "adapter"
    created: int = Field(description="Time of creation: Unix time in seconds.")
    task_description: str = Field(
        description="The description that the adapter was first generated for, normalised: Unicode NFC, single "
        "spaces, no invisible characters."
    )
    nbytes: int = Field(description="Size of the weights in bytes.")
    spec: SpecOut


class CreatedAdapter(DescriptionCheck, AdapterOut):
    """An adapter, where it was found, and what the encoder reads of the description."""

    source: Source = Field(description="Where the adapter was found, or `generated` if it was new.")


class AdapterPage(BaseModel):
    """A page of adapters, newest first."""

    object: Literal["list"] = "list"
    data: list[AdapterOut]
    next: str | None = Field(description="Value of `after` for the next page. Null: this is the last page.")
    complete: bool = Field(description="False if Redis did not answer: the page shows memory only.")


class Health(BaseModel):
    """The process and its engine are alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The server accepts requests."""

    status: Literal["ok", "degraded"] = Field(
        description="`degraded`: requests succeed, but `reasons` names a fault."
    )
    reasons: list[str] = Field(description="What is wrong. Empty if nothing is.")
    in_flight: int = Field(description="Requests in progress.")
    engine: dict[str, Any] = Field(description="The engine's adapter slots and their use.")


class ErrorDetail(BaseModel):
    """One error."""

    message: str = Field(description="What is wrong, where, and how to fix it.")
    type: str = Field(description="Kind of error, such as `invalid_request_error`.")
    param: str | None = Field(description="Path of the wrong field. Null: no single field is wrong.")
    code: str = Field(description="Stable identifier of the error, for programs.")


class ErrorOut(BaseModel):
    """Body of every error response."""

    error: ErrorDetail
