"""Tokenizes prompts and checks their length before any work is spent on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from server.engine.interface import Engine
from server.errors import InvalidRequestError

DEFAULT_MAX_TOKENS = 256
"""Maximum completion tokens if the request has no `max_tokens` and the context has room."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt: text for the chat template, raw text, or chat messages."""

    text: str | None = None
    messages: Sequence[dict[str, str]] | None = None
    raw: bool = False

    @property
    def param(self) -> str:
        """The request field of the prompt."""
        return "prompt" if self.messages is None else "messages"


class PromptTokenizer:
    """Tokenizes in one thread: a long prompt takes long, and tokenizers are not thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="t2l-tokenizer")

    async def encode(self, prompt: Prompt, max_tokens: int | None) -> tuple[list[int], int]:
        """Tokenize a prompt and choose the completion's maximum length.

        Args:
            prompt: the prompt.
            max_tokens: the request's maximum. None: `DEFAULT_MAX_TOKENS`, or the room in the
                context.

        Returns:
            The prompt's token ids, and the maximum number of completion tokens.

        Raises:
            InvalidRequestError: prompt and completion exceed the context.
        """
        messages, text = None, prompt.text
        if prompt.messages is not None:
            messages, text = list(prompt.messages), None
        elif not prompt.raw:
            messages, text = [{"role": "user", "content": prompt.text or ""}], None
        tokens = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._engine.tokenize, messages, text
        )
        context = self._engine.max_model_len
        room = context - len(tokens)
        if not tokens:
            raise InvalidRequestError("the prompt has no tokens: send some text", param=prompt.param)
        size = f"the prompt has {len(tokens)} tokens, and the context holds {context} for prompt and completion"
        if room < 1:
            raise InvalidRequestError(size, param=prompt.param, code="context_length_exceeded")
        if max_tokens is not None and max_tokens > room:
            raise InvalidRequestError(
                f"{size}: max_tokens can be at most {room}, not {max_tokens}",
                param="max_tokens",
                code="context_length_exceeded",
            )
        return tokens, max_tokens or min(DEFAULT_MAX_TOKENS, room)

    async def close(self) -> None:
        """Stop the thread."""
        await asyncio.to_thread(self._thread.shutdown)
