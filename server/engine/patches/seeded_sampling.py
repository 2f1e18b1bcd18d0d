"""Repairs seeded sampling on a CPU: chunked prefill of a seeded request must not stop the engine.

While vLLM 0.32 prefills a prompt in chunks, it samples a token after every chunk, discards the
token and moves the row's random generator back by an offset. CPU generators have no offset:
`set_offset` raises inside the step, and the engine dies with all its streams. A client triggers
this with a seed and a prompt that does not fit into one step. This patch restores the generator's
state instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def install() -> None:
    """Wrap the two methods of vLLM's model runner that sample the discarded token and undo it."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as Runner  # the base class of the CPU's runner

    Runner._sample = _wrap_sample(Runner._sample)
    Runner._bookkeeping_sync = _wrap_bookkeeping_sync(Runner._bookkeeping_sync)


def _discarded_generators(runner: Any) -> dict[int, torch.Generator]:
    """Random generators of the rows whose token will be discarded, by row."""
    batch = runner.input_batch
    mask = runner.discard_request_mask.np[: batch.num_reqs]
    return {row: generator for row, generator in batch.generators.items() if mask[row]}


def _wrap_sample(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def _sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = [(generator, generator.get_state()) for generator in _discarded_generators(self).values()]
        try:
            return original(self, *args, **kwargs)
        finally:
            for generator, state in states:
                generator.set_state(state)

    return _sample


def _wrap_bookkeeping_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def _bookkeeping_sync(self: Any, *args: Any, **kwargs: Any) -> Any:
        discarded = _discarded_generators(self)
        for row in discarded:
            del self.input_batch.generators[row]
        try:
            return original(self, *args, **kwargs)
        finally:
            self.input_batch.generators.update(discarded)

    return _bookkeeping_sync
