"""Checks task descriptions before any model runs, and turns a refusal into a client's error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypernet.description_tokenizer import PreparedDescription
from hypernet.descriptions import DescriptionError
from server.errors import InvalidRequestError

INLINE_CHARACTERS = 500
"""Longer descriptions are tokenized in a thread. This many take less than a millisecond."""


class DescriptionPreparer:
    """Prepares descriptions without blocking the event loop."""

    def __init__(self, prepare: Callable[[str], PreparedDescription]) -> None:
        """Wrap `AdapterGenerator.prepare`, which is thread-safe."""
        self._prepare = prepare

    async def prepare(self, description: str) -> PreparedDescription:
        """Normalise, tokenize and check a description.

        Raises:
            InvalidRequestError: the description is empty, too long or not readable for the encoder.
        """
        try:
            if len(description) <= INLINE_CHARACTERS:
                return self._prepare(description)
            return await asyncio.to_thread(self._prepare, description)
        except DescriptionError as error:
            raise InvalidRequestError(str(error), param="task_description", code=error.code) from error
