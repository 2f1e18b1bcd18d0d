"""Data-parallel training: the processes that `torchrun` starts, each with some rows of every batch.

A batch depends on its step only, so N processes compute what one would. Each takes some of the
rows. Its loss is scaled so that the losses of all processes add up to that of the batch, and
gradients are summed. Nothing is averaged over processes, because their numbers of rows may differ.
The hypernetwork runs whole in every process, so that dropout is the same for any number of
processes. It is small beside the base model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among the processes of a run. By default it is the only one.

    Attributes:
        rank: number of this process. Process 0 logs, validates and saves.
        count: number of processes.
        device: where this process computes.
    """

    device: str
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process logs, validates and saves for all."""
        return self.rank == 0

    def local_rows(self, rows: int) -> list[int]:
        """The rows of a batch that this process computes: every count-th, so that lengths mix."""
        return list(range(self.rank, rows, self.count))

    def all_reduce_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the sum over processes."""
        if self.count == 1:
            return
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:  # no rows here: the sum of the other processes still counts
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)

    def all_reduce(self, values: list[float]) -> list[float]:
        """Sum each value over processes."""
        if self.count == 1:
            return values
        total = self._tensor(values)
        distributed.all_reduce(total)
        return total.tolist()

    def broadcast(self, value: float) -> float:
        """The value of process 0.

        Clocks differ, but all processes must take the same number of steps.
        """
        if self.count == 1:
            return value
        said = self._tensor([value])
        distributed.broadcast(said, src=0)
        return said.item()

    def _tensor(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)


def is_main_process() -> bool:
    """Whether this process prints for all."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: str) -> Iterator[Workers]:
    """Join the processes that torchrun started. A process that was started alone is the only one.

    Args:
        device: a torch device. `cuda` becomes this process's own GPU, with NCCL; CPUs use Gloo.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Workers(device)
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Workers(device, distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
