"""A row whose token is discarded keeps the state of its random generator,
and the engine stays alive.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from server.engine.patches import seeded_sampling


class Runner:
    """The part of vLLM's model runner that samples a token per row and undoes discarded ones."""

    def __init__(self, drop: list[bool]) -> None:
        generators = {i: torch.Generator().manual_seed(i) for i in range(len(drop))}
        self.input_batch = SimpleNamespace(num_reqs=len(drop), generators=generators)
        self.discard_request_mask = SimpleNamespace(np=np.array([*drop, True]))  # longer than the batch

    def _sample(self) -> list[float]:
        return [torch.rand(1, generator=g).item() for g in self.input_batch.generators.values()]

    def _bookkeeping_sync(self) -> None:
        for i in np.nonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])[0]:
            generator = self.input_batch.generators.get(int(i))
            if generator is not None:
                generator.set_offset(generator.get_offset() - 4)


def step(runner: Any) -> list[float]:
    drawn: list[float] = runner._sample()
    runner._bookkeeping_sync()
    return drawn


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_model_runner = pytest.importorskip("vllm.v1.worker.gpu_model_runner")
    monkeypatch.setattr(gpu_model_runner, "GPUModelRunner", Runner)
    monkeypatch.setattr(Runner, "_sample", Runner._sample)
    monkeypatch.setattr(Runner, "_bookkeeping_sync", Runner._bookkeeping_sync)
    seeded_sampling.install()


def test_vllms_undo_of_a_discarded_token_still_fails_on_a_cpu() -> None:
    """If this test fails, vLLM has fixed the fault, and the patch can be removed."""
    with pytest.raises(RuntimeError, match="does not use offset"):
        step(Runner([True]))


def test_discarded_token_is_sampled_again(patched: None) -> None:
    runner = Runner([True, False])
    first = step(runner)
    assert list(runner.input_batch.generators) in ([0, 1], [1, 0])
    runner.discard_request_mask.np[:] = False
    second = dict(zip(runner.input_batch.generators, runner._sample(), strict=True))
    assert second[0] == first[0]
    assert second[1] != first[1]
