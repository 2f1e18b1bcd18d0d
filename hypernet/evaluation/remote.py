"""Evaluates conditions through a running server: many adapters in one engine, scores without
likelihoods.

Prompts are rendered here with the base model's own chat template and sent raw. The server's model
therefore reads exactly the prompts of `runner.py`.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from hypernet.errors import T2lError
from hypernet.evaluation.conditions import Condition, GeneratedAdapters, Hyperdecoder, PromptVariant
from hypernet.evaluation.eval_task import EvalTask
from hypernet.evaluation.prompt_forms import WithDescription, WithExamples
from hypernet.evaluation.results import EvalResult, ResultStore
from hypernet.evaluation.runner import PROTOCOL, answer_token_limit, rendered_tokens
from hypernet.packing import ChatFormat
from hypernet.peft_io import read_provenance

CONCURRENCY = 16
TIMEOUT_S = 600.0


class ServerError(T2lError):
    """The server cannot be reached, refuses a request, or serves another checkpoint."""


class RemoteRunner:
    """Computes results with a server.

    Args:
        url: of the server.
        checkpoint: fingerprint of the hypernetwork that it must serve.
        base: name of the base model.
        chat: its chat format.
        store: where results are kept.
        seed: recorded in each result.

    Raises:
        ServerError: the server cannot be reached or serves another checkpoint.
    """

    def __init__(
        self, url: str, checkpoint: str, base: str, chat: ChatFormat, store: ResultStore, seed: int
    ) -> None:
        self.url, self.checkpoint, self.base = url, checkpoint, base
        self.chat, self.store, self.seed = chat, store, seed
        served = served_checkpoint(url)
        if served != checkpoint:
            raise ServerError(
                f"{url} serves checkpoint {served}, not {checkpoint}: start it with T2L_CHECKPOINT"
            )

    def run(self, conditions: Sequence[Condition], eval_tasks: Sequence[EvalTask]) -> Iterator[EvalResult]:
        """Every result that the conditions do not skip."""
        for condition in conditions:
            for eval_task in eval_tasks:
                if not condition.skip_reason(eval_task):
                    yield self._result(condition, eval_task)

    def _result(self, condition: Condition, eval_task: EvalTask) -> EvalResult:
        parts = ["server", PROTOCOL, self.checkpoint, eval_task.digest, rendered_tokens(eval_task, self.chat)]
        parts.append(condition.identity(eval_task))
        key = sha256(repr(parts).encode()).hexdigest()[:16]
        if stored := self.store.load(eval_task, condition.name, condition.system, key):
            return stored
        limit = answer_token_limit(eval_task, self.chat)
        requests = [
            {
                "prompt": self.chat.render(
                    variant.user_message(sample), variant.turns, eval_task.answer_prefix
                ),
                "raw": True,
                "max_tokens": limit,
            }
            | ({"task_description": description} if description else {})
            for variant, description in _remote_variants(condition, eval_task)
            for sample in eval_task.samples
        ]
        completions = asyncio.run(self._complete(requests))
        n = len(eval_task.samples)
        result = EvalResult.from_answers(
            eval_task,
            condition=condition.name,
            system=condition.system,
            base=self.base,
            seed=self.seed,
            answers=[completions[start : start + n] for start in range(0, len(completions), n)],
            nlls=None,
        )
        self.store.save(result, key)
        return result

    async def _complete(self, requests: list[dict[str, Any]]) -> list[str]:
        """Completions in the order of the requests. Up to `CONCURRENCY` requests run at once."""
        gate = asyncio.Semaphore(CONCURRENCY)
        async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S) as http:

            async def complete(request: dict[str, Any]) -> str:
                async with gate:
                    response = await _checked(http.post("/v1/generate", json=request))
                return str(response.json()["completion"])

            return await asyncio.gather(*map(complete, requests))


def is_servable(condition: Condition) -> bool:
    """Whether a server can evaluate the condition: without an adapter, or with a generated one."""
    if isinstance(condition, WithDescription | WithExamples):
        return is_servable(condition.adapted)
    if isinstance(condition, GeneratedAdapters):
        # Without a description the base model answers, so the empty description cannot be sent.
        return condition.name != "empty" and not isinstance(condition, Hyperdecoder)
    return condition.name in ("base", "prompted", "icl")


def served_checkpoint(url: str) -> str:
    """Fingerprint of the hypernetwork behind a server, read from an adapter that it exports.

    Raises:
        ServerError: the server cannot be reached, or refuses.
    """
    try:
        return asyncio.run(_served_checkpoint(url))
    except (ValueError, LookupError, TypeError, zipfile.BadZipFile, httpx.InvalidURL) as error:
        raise ServerError(
            f"{url} is not a Text-to-LoRA server ({error!r}): --server takes its address, "
            "such as http://localhost:8000"
        ) from error


async def _served_checkpoint(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
        created = (
            await _checked(http.post("/v1/adapters", json={"task_description": "Who wrote this?"}))
        ).json()
        archive = (await _checked(http.get(f"/v1/adapters/{created['id']}/export"))).content
    with TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
        return read_provenance(Path(folder))["t2l.checkpoint"]


async def _checked(request: Awaitable[httpx.Response]) -> httpx.Response:
    try:
        response = await request
    except httpx.HTTPError as error:
        raise ServerError(
            f"the server did not answer: {error!r}. Is it running, and is --server its address?"
        ) from error
    if response.is_error:
        raise ServerError(f"{response.request.url}: {response.status_code} {response.text}")
    return response


def _remote_variants(condition: Condition, eval_task: EvalTask) -> list[tuple[PromptVariant, str]]:
    """Each variant, with the description that the server generates its adapter from."""
    if isinstance(condition, GeneratedAdapters):
        return [(PromptVariant(), description) for description in condition.descriptions(eval_task)]
    if isinstance(condition, WithDescription | WithExamples) and isinstance(
        condition.adapted, GeneratedAdapters
    ):
        pairs = zip(condition.variants(eval_task), condition.adapted.descriptions(eval_task), strict=True)
        return [(replace(variant, adapters=()), description) for variant, description in pairs]
    return [(variant, "") for variant in condition.variants(eval_task)]
