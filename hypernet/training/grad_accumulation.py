"""A batch computed share by share, with the gradient of the whole.

All adapters of a batch are written in one pass of the hypernetwork; the base model then
runs over some rows at a time. What a share needs in memory is freed before the next
begins, so a batch may be larger than a device holds (gradient accumulation), and other
processes may take other shares (`distributed.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from hypernet.lora import LoraBatch
from hypernet.training.loop import StepResult


def in_shares(
    written: LoraBatch, shares: Sequence[list[int]], compute: Callable[[list[int], LoraBatch], StepResult]
) -> StepResult:
    """The sum of a loss over shares of a batch.

    Args:
        written: the batch's adapters with their graph.
        shares: row numbers; none of them empty.
        compute: a share's rows and all adapters -> its part of the loss, and its part of each metric.
            It runs backward at once, down to the adapters.

    Returns:
        The summed loss; its gradient goes on from the adapters to what wrote them.
    """
    cut = written.map(lambda t: t.detach().requires_grad_())
    value, tokens, metrics = 0.0, 0, Counter[str]()
    for rows in shares:
        part = compute(rows, cut)
        part.loss.backward()  # type: ignore[no-untyped-call]
        value += part.loss.item()
        tokens += part.tokens
        metrics.update(part.metrics)
    # Linear in the adapters with the gradients as factors: its own gradient is theirs.
    rest = torch.stack(
        [
            (t * leaf.grad).sum()
            for side, leaves in ((written.a, cut.a), (written.b, cut.b))
            for t, leaf in zip(side.values(), leaves.values(), strict=True)
            if leaf.grad is not None
        ]
    ).sum()
    return StepResult(rest - rest.detach() + value, tokens, dict(metrics))
