"""Several processes, one run: what `torchrun` starts, each with its share of every batch.

A batch belongs to its step, not to a process, so N processes compute what one would:
each takes its share of the rows, scaled so that the shares' losses add up to the
batch's, and gradients are summed. Nothing is averaged over processes, whose shares may
differ in size. The network itself runs whole in every process (it is small beside the
base model), which keeps dropout the same however many there are.
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
    """This process among those of a run; by default the only one.

    Attributes:
        rank: number of this process; 0 logs, validates and saves.
        count: how many there are.
        device: where this process computes.
    """

    device: str
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def local_rows(self, rows: int) -> list[int]:
        """Which rows of a batch are this process's: every count-th, so that lengths mix."""
        return list(range(self.rank, rows, self.count))

    def all_reduce_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the sum over processes."""
        if self.count == 1:
            return
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:  # an empty share: the others' sum still counts here
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
        """The first process's value: clocks differ, and all must take the same number of steps."""
        if self.count == 1:
            return value
        said = self._tensor([value])
        distributed.broadcast(said, src=0)
        return said.item()

    def _tensor(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)


def is_main_process() -> bool:
    """Whether this process prints what all would print."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: str) -> Iterator[Workers]:
    """Join the processes that torchrun started; a process started alone is the only one.

    Args:
        device: a torch device. `cuda` becomes this process's own GPU, over NCCL; CPUs talk over Gloo.
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
