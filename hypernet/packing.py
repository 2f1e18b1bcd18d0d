"""Packs many short examples of one task into one row, with their shared prompt prefix computed
once.

A generated LoRA belongs to a task, so a row of the batch is one task and one LoRA. Short tasks
spend most of their tokens on the chat template, which all examples of a row begin with. A row is
laid out as

    [ shared prefix | rest of example 1 | rest of example 2 | ... ]

Every example attends to the prefix and to itself, never to another example, and positions restart
after the prefix. The model computes the same as for each example alone. On function-vector tasks an
example takes about a third of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

PAD = -1
"""Segment number of padding."""


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised example. The response ends with the end-of-turn token."""

    prompt: list[int]
    response: list[int]
    text: str = ""
    """The input as text, for callers that embed it."""
    answer: str = ""
    """The response as text."""
    earlier: tuple[tuple[int, int], ...] = ()
    """(start, length) in the prompt of each answer to an earlier turn whose likelihood counts as
    well. All examples of a row have the same earlier turns."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """N rows of T tokens that hold K examples with S response tokens in all.

    Attributes:
        tokens, positions: [N, T].
        mask: [N, 1, T, T], True where a query (third axis) may attend to a key (fourth axis).
        rows, columns: [S], the place whose output predicts a response token.
        targets: [S], the response token.
        example: [S], the example of the response token, numbered through all rows. Answers of
            earlier turns count as examples and come first in each row.
        example_rows: [K], the row of each example.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    example: Tensor
    example_rows: Tensor

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the model computes, padding included."""
        return self.tokens.numel()

    def to(self, device: str) -> PackedBatch:
        """The same batch on a device."""
        return PackedBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def mean_per_example(self, values: Tensor) -> Tensor:
        """Average a value per response token over each example. [S] -> [K]."""
        count = len(self.example_rows)
        sums = torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, self.example, values)
        return sums / torch.bincount(self.example, minlength=count).clamp(min=1)


class ChatFormat:
    """Turns inputs and outputs into tokens with the base model's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.end_of_turn = _end_of_turn(tokenizer)
        """The token that ends a response."""

    def example(self, prompt: str, response: str) -> Example:
        """A user turn and its response."""
        return Example(self.prompt(prompt), self.response(response), prompt, response)

    def earlier(self, prompt: list[int], before: Sequence[tuple[str, str]]) -> tuple[tuple[int, int], ...]:
        """Where in a prompt the answers of its earlier turns lie, as `Example.earlier`.

        An answer is left out where the chat template writes it otherwise than as an answer to be
        learnt.
        """
        spans = []
        for i, (text, answer) in enumerate(before):
            start, response = self.prompt(text, before[:i]), self.response(answer)
            stop = len(start) + len(response)
            if prompt[:stop] == [*start, *response]:
                spans.append((len(start), len(response)))
        return tuple(spans)

    def prompt(self, text: str, history: Sequence[tuple[str, str]] = (), prefill: str = "") -> list[int]:
        """The tokens of `render`."""
        return self._ids(self.render(text, history, prefill))

    def render(self, text: str, history: Sequence[tuple[str, str]] = (), prefill: str = "") -> str:
        """The text of a user turn in the chat template, up to the start of the response.

        Args:
            text: the user turn.
            history: earlier turns, as pairs of user and assistant.
            prefill: start of the response, which the model continues.
        """
        turns = [
            {"role": role, "content": content}
            for pair in history
            for role, content in zip(("user", "assistant"), pair, strict=True)
        ]
        chat = self._tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        return f"{chat}{prefill}"

    def response(self, text: str) -> list[int]:
        """The tokens of a response, with the end of its turn."""
        return [*self._ids(text), self.end_of_turn]

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, without special tokens."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the chat template puts after a response, such as Gemma's `<end_of_turn>`."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    chat = str(tokenizer.apply_chat_template(turns, tokenize=False))
    behind: list[int] = tokenizer(chat.rpartition("answer")[2], add_special_tokens=False).input_ids
    marks = behind and behind[0] in tokenizer.added_tokens_decoder
    return behind[0] if marks else int(tokenizer.eos_token_id)


def fit_row(examples: list[Example], budget: int) -> list[Example]:
    """The first examples whose packed row has at most `budget` tokens,
    and never fewer than one example.
    """
    kept = examples[:1]
    for example in examples[1:]:
        if row_length([*kept, example]) > budget:
            break
        kept.append(example)
    return kept


def pack(rows: list[list[Example]], multiple: int = 32) -> PackedBatch:
    """Pack each list of examples into a row. Rows are padded to the longest, rounded up to
    `multiple`.

    Rounding keeps the number of distinct shapes small, so torch.compile recompiles less often.
    """
    length = -(-max(row_length(row) for row in rows) // multiple) * multiple
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), PAD, dtype=torch.long)
    predictions: list[tuple[int, int, int, int]] = []  # (row, column, target, example)
    example_rows: list[int] = []
    for n, row in enumerate(rows):
        shared = shared_prefix(row)
        _write_tokens(tokens, positions, segments, n, 0, row[0].prompt[:shared], 0, 0)
        for begin, count in row[0].earlier:
            answer = row[0].prompt[begin : begin + count]
            predictions += [(n, begin - 1 + i, t, len(example_rows)) for i, t in enumerate(answer)]
            example_rows.append(n)
        start = shared
        for number, example in enumerate(row, start=1):
            rest = [*example.prompt[shared:], *example.response]
            _write_tokens(tokens, positions, segments, n, start, rest, shared, number)
            first = start + len(example.prompt) - shared - 1  # the prompt's last token predicts the response
            predictions += [(n, first + i, t, len(example_rows)) for i, t in enumerate(example.response)]
            example_rows.append(n)
            start += len(rest)
    rows_of, columns, targets, example_of = torch.tensor(predictions).unbind(1)  # [S] each
    return PackedBatch(
        tokens,
        positions,
        _mask(segments),
        rows_of,
        columns,
        targets,
        example_of,
        torch.tensor(example_rows),
    )


def num_answers(row: list[Example]) -> int:
    """Number of answers of a row whose likelihood counts:
    its examples' and their earlier turns'.
    """
    return len(row) + len(row[0].earlier)


def shared_prefix(row: list[Example]) -> int:
    """Number of leading prompt tokens that all examples share.

    Each keeps at least one token of its own.
    """
    limit = min(len(example.prompt) for example in row) - 1
    first = row[0].prompt
    for i in range(limit):
        if any(example.prompt[i] != first[i] for example in row):
            return i
    return limit


def row_length(row: list[Example]) -> int:
    """Number of tokens of a row, with the shared prefix counted once."""
    shared = shared_prefix(row)
    return shared + sum(len(e.prompt) - shared + len(e.response) for e in row)


def _write_tokens(
    tokens: Tensor,
    positions: Tensor,
    segments: Tensor,
    n: int,
    start: int,
    ids: list[int],
    position: int,
    segment: int,
) -> None:
    """Write token ids, their positions and their segment into row n, from column `start`."""
    stop = start + len(ids)
    tokens[n, start:stop] = torch.tensor(ids, dtype=torch.long)
    positions[n, start:stop] = torch.arange(position, position + len(ids))
    segments[n, start:stop] = segment


def _mask(segments: Tensor) -> Tensor:
    """Causal mask within a token's own segment and the prefix (segment 0). [N, T] -> [N, 1, T, T].

    Padding attends to padding, so no row of the softmax is empty.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    return ((key == query) | (key == 0) & (query != PAD))[:, None] & causal
