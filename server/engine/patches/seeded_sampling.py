"""Seeded sampling on CPU mended: a prompt that is read in pieces must not end the engine.

While a prompt is still being read vLLM 0.32 samples from its row all the same, drops the
token, and steps the row's random generator back by an offset. A CPU generator has none:
`set_offset` raises inside the step, and the engine dies with every stream in it. A client
needs no more than a seed and a prompt that does not fit into one step beside the others.
Here such a generator is put back to the state that it had before the sampling, which is
what the offset is for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def install() -> None:
    """Wrap the two methods of vLLM's model runner between which a dropped token is drawn and undone."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as Runner  # the CPU's runner is one, too

    Runner._sample = _wrap_sample(Runner._sample)
    Runner._bookkeeping_sync = _wrap_bookkeeping_sync(Runner._bookkeeping_sync)


def _discarded_generators(runner: Any) -> dict[int, torch.Generator]:
    """Generators of the rows whose token will be dropped, by row."""
    batch = runner.input_batch
    drop = runner.discard_request_mask.np[: batch.num_reqs]
    return {row: generator for row, generator in batch.generators.items() if drop[row]}


def _wrap_sample(stock: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(stock)
    def _sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = [(generator, generator.get_state()) for generator in _discarded_generators(self).values()]
        try:
            return stock(self, *args, **kwargs)
        finally:
            for generator, state in before:
                generator.set_state(state)

    return _sample


def _wrap_bookkeeping_sync(stock: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(stock)
    def _bookkeeping_sync(self: Any, *args: Any, **kwargs: Any) -> Any:
        dropped = _discarded_generators(self)
        for row in dropped:
            del self.input_batch.generators[row]
        try:
            return stock(self, *args, **kwargs)
        finally:
            self.input_batch.generators.update(dropped)

    return _bookkeeping_sync
