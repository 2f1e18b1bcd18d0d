"""A row whose token is dropped leaves its random generator as it was, and the engine alive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from server.engine.patches import seeded_sampling


class Runner:
    """As much of vLLM's model runner as draws a token for every row and undoes those that are dropped."""

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
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_model_runner = pytest.importorskip("vllm.v1.worker.gpu_model_runner")
    monkeypatch.setattr(gpu_model_runner, "GPUModelRunner", Runner)
    monkeypatch.setattr(Runner, "_sample", Runner._sample)
    monkeypatch.setattr(Runner, "_bookkeeping_sync", Runner._bookkeeping_sync)
    seeded_sampling.install()


def test_the_fault_is_still_there() -> None:
    """When it is not, this mending may go."""
    with pytest.raises(RuntimeError, match="does not use offset"):
        step(Runner([True]))


def test_a_dropped_token_is_drawn_again(mended: None) -> None:
    runner = Runner([True, False])
    first = step(runner)
    assert list(runner.input_batch.generators) in ([0, 1], [1, 0])
    runner.discard_request_mask.np[:] = False
    second = dict(zip(runner.input_batch.generators, runner._sample(), strict=True))
    assert second[0] == first[0]
    assert second[1] != first[1]
