"""Many short examples of one task in one row: the shared prompt prefix is computed once, the rest side by side.

A generated LoRA belongs to a task, so a row of the batch is one task and one LoRA.
Short tasks spend most of their tokens on the chat template; all examples of a row
begin with it. A row is therefore laid out as

    [ shared prefix | rest of example 1 | rest of example 2 | ... ]

where every example sees the prefix and itself, never a neighbour, and positions
restart after the prefix: exactly what the model would compute for each alone. On
function-vector tasks this is about three times fewer tokens per example.
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
    """One tokenised example. The response ends with the end-of-turn token."""

    prompt: list[int]
    response: list[int]
    text: str = ""
    """The input as it was written, for who wants to embed it."""
    answer: str = ""
    """The response as it was written."""
    earlier: tuple[tuple[int, int], ...] = ()
    """(start, length) of answers to earlier turns within the prompt whose likelihood counts, too. All
    examples of a row have the same earlier turns."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """N rows of T tokens, and where in them the K examples' S response tokens are predicted.

    Attributes:
        tokens, positions: [N, T].
        mask: [N, 1, T, T], True where a query (third axis) may look at a key (fourth).
        rows, columns: [S], the position whose output predicts a response token.
        targets: [S], that token.
        example: [S], which example (numbered through all rows) it belongs to. Answers of earlier turns count
            as examples; in each row they come first.
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
        """Tokens that are computed, padding included."""
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
    """Turns inputs and outputs into tokens, through the base model's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.end_of_turn = _end_of_turn(tokenizer)
        """The token that ends an answer."""

    def example(self, prompt: str, response: str) -> Example:
        """One user turn and its answer."""
        return Example(self.prompt(prompt), self.response(response), prompt, response)

    def earlier(self, prompt: list[int], before: Sequence[tuple[str, str]]) -> tuple[tuple[int, int], ...]:
        """Where in a prompt the answers of its earlier turns lie, as `Example.earlier`.

        An answer is left out where the chat template writes it otherwise than as an answer to be learnt.
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
        """One user turn as the model reads it, ready for the answer.

        Args:
            text: what the user says.
            history: earlier turns, as (user, assistant).
            prefill: how the answer begins; the model goes on from there.
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
        """An answer and the end of its turn."""
        return [*self._ids(text), self.end_of_turn]

    def text(self, tokens: list[int]) -> str:
        """Tokens back to text, special tokens left out."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """What the chat template puts behind an answer: not always the end of text (Gemma's `<end_of_turn>`)."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    chat = str(tokenizer.apply_chat_template(turns, tokenize=False))
    behind: list[int] = tokenizer(chat.rpartition("answer")[2], add_special_tokens=False).input_ids
    marks = behind and behind[0] in tokenizer.added_tokens_decoder
    return behind[0] if marks else int(tokenizer.eos_token_id)


def fit_row(examples: list[Example], budget: int) -> list[Example]:
    """The longest head of `examples` whose packed row stays within `budget` tokens (at least one example)."""
    kept = examples[:1]
    for example in examples[1:]:
        if row_length([*kept, example]) > budget:
            break
        kept.append(example)
    return kept


def pack(rows: list[list[Example]], multiple: int = 32) -> PackedBatch:
    """Lay out one row per list of examples, padded to the longest, rounded up to `multiple`.

    Rounding keeps the number of distinct shapes small, which caches and compilers like.
    """
    length = -(-max(row_length(row) for row in rows) // multiple) * multiple
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), PAD, dtype=torch.long)
    spots: list[tuple[int, int, int, int]] = []  # (row, column, target, example)
    example_rows: list[int] = []
    for n, row in enumerate(rows):
        shared = shared_prefix(row)
        _write(tokens, positions, segments, n, 0, row[0].prompt[:shared], 0, 0)
        for begin, count in row[0].earlier:
            answer = row[0].prompt[begin : begin + count]
            spots += [(n, begin - 1 + i, t, len(example_rows)) for i, t in enumerate(answer)]
            example_rows.append(n)
        start = shared
        for number, example in enumerate(row, start=1):
            rest = [*example.prompt[shared:], *example.response]
            _write(tokens, positions, segments, n, start, rest, shared, number)
            first = (
                start + len(example.prompt) - shared - 1
            )  # the prompt's last token predicts the first answer token
            spots += [(n, first + i, t, len(example_rows)) for i, t in enumerate(example.response)]
            example_rows.append(n)
            start += len(rest)
    spot = torch.tensor(spots)  # [S, 4]
    return PackedBatch(
        tokens,
        positions,
        _mask(segments),
        spot[:, 0],
        spot[:, 1],
        spot[:, 2],
        spot[:, 3],
        torch.tensor(example_rows),
    )


def num_answers(row: list[Example]) -> int:
    """Answers of a row whose likelihood counts: those of its examples and of their earlier turns."""
    return len(row) + len(row[0].earlier)


def shared_prefix(row: list[Example]) -> int:
    """How many leading prompt tokens all examples share, leaving each at least one prompt token of its own."""
    limit = min(len(example.prompt) for example in row) - 1
    first = row[0].prompt
    for i in range(limit):
        if any(example.prompt[i] != first[i] for example in row):
            return i
    return limit


def row_length(row: list[Example]) -> int:
    """Tokens of a row, its shared prefix counted once."""
    shared = shared_prefix(row)
    return shared + sum(len(e.prompt) - shared + len(e.response) for e in row)


def _write(
    tokens: Tensor,
    positions: Tensor,
    segments: Tensor,
    n: int,
    start: int,
    ids: list[int],
    position: int,
    segment: int,
) -> None:
    """Put a run of tokens into row n."""
    stop = start + len(ids)
    tokens[n, start:stop] = torch.tensor(ids, dtype=torch.long)
    positions[n, start:stop] = torch.arange(position, position + len(ids))
    segments[n, start:stop] = segment


def _mask(segments: Tensor) -> Tensor:
    """Causal, within the own segment or the prefix (segment 0). [N, T] -> [N, 1, T, T].

    Padding sees padding, so that no softmax runs over nothing.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    return ((key == query) | (key == 0) & (query != PAD))[:, None] & causal
