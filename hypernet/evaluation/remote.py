"""The same conditions through a running server: many adapters in one engine, scores without likelihoods.

Prompts are rendered here with the base model's own chat template and sent as they
are, so that the server's model reads exactly what `runner.py` would give it.
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
    """Makes results by asking a server.

    Args:
        url: of the server.
        checkpoint: fingerprint of the hypernetwork that it must serve.
        base: name of the base model.
        chat: its chat format.
        store: where results are kept.
        seed: noted in each result.

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
        """Every result that can be made so, as it is finished."""
        for condition in conditions:
            for eval_task in eval_tasks:
                if not condition.skip_reason(eval_task):
                    yield self._result(condition, eval_task)

    def _result(self, condition: Condition, eval_task: EvalTask) -> EvalResult:
        parts = ["server", PROTOCOL, self.checkpoint, eval_task.digest, rendered_tokens(eval_task, self.chat)]
        parts.append(condition.identity(eval_task))
        key = sha256(repr(parts).encode()).hexdigest()[:16]
        if found := self.store.load(eval_task.task, condition.name, condition.system, key):
            return found
        limit = answer_token_limit(eval_task, self.chat)
        asked = [
            {
                "prompt": self.chat.render(variant.question(i), variant.turns, eval_task.answer_prefix),
                "raw": True,
                "max_tokens": limit,
            }
            | ({"task_description": description} if description else {})
            for variant, description in _remote_variants(condition, eval_task)
            for i in eval_task.samples
        ]
        said = asyncio.run(self._complete(asked))
        n = len(eval_task.samples)
        result = EvalResult.from_answers(
            eval_task,
            condition=condition.name,
            system=condition.system,
            base=self.base,
            seed=self.seed,
            answers=[said[start : start + n] for start in range(0, len(said), n)],
            nlls=None,
        )
        self.store.save(result, key)
        return result

    async def _complete(self, bodies: list[dict[str, Any]]) -> list[str]:
        """Completions in the order of the requests, a few at a time."""
        gate = asyncio.Semaphore(CONCURRENCY)
        async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S) as http:

            async def one(body: dict[str, Any]) -> str:
                async with gate:
                    answer = await _checked(http.post("/v1/generate", json=body))
                return str(answer.json()["completion"])

            return await asyncio.gather(*map(one, bodies))


def is_servable(condition: Condition) -> bool:
    """Whether a server can be asked so: with no adapter, or one that it writes for a description."""
    if isinstance(condition, WithDescription | WithExamples):
        return is_servable(condition.adapted)
    if isinstance(condition, GeneratedAdapters):
        # Without a description the base model answers, so the empty one cannot be sent.
        return condition.name != "empty" and not isinstance(condition, Hyperdecoder)
    return condition.name in ("base", "prompted", "icl")


def served_checkpoint(url: str) -> str:
    """Fingerprint of the hypernetwork behind a server: its exported adapters name it.

    Raises:
        ServerError: it cannot be reached, or refuses.
    """
    return asyncio.run(_served_checkpoint(url))


async def _served_checkpoint(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
        made = (await _checked(http.post("/v1/adapters", json={"task_description": "Who wrote this?"}))).json()
        archive = (await _checked(http.get(f"/v1/adapters/{made['id']}/export"))).content
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
    """Each variant, with the description that the server shall write an adapter for."""
    if isinstance(condition, GeneratedAdapters):
        return [(PromptVariant(), description) for description in condition.wordings(eval_task)]
    if isinstance(condition, WithDescription | WithExamples) and isinstance(
        condition.adapted, GeneratedAdapters
    ):
        told = zip(condition.variants(eval_task), condition.adapted.wordings(eval_task), strict=True)
        return [(replace(variant, adapters=()), description) for variant, description in told]
    return [(variant, "") for variant in condition.variants(eval_task)]
