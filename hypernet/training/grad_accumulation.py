"""Gradient accumulation: a batch is computed microbatch by microbatch, with the gradient of the
whole.

The hypernetwork generates all adapters of a batch in one pass. The base model then runs over some
rows at a time. The memory of a microbatch is freed before the next begins, so a batch may be larger
than a device holds, and other processes may take other microbatches (`distributed.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from hypernet.lora import LoraBatch
from hypernet.training.loop import StepResult


def accumulate_gradients(
    generated: LoraBatch,
    microbatches: Sequence[list[int]],
    compute: Callable[[list[int], LoraBatch], StepResult],
) -> StepResult:
    """The sum of a loss over the microbatches of a batch.

    Args:
        generated: the batch's adapters with their graph.
        microbatches: row numbers; none of them empty.
        compute: (rows of a microbatch, all adapters) -> its part of the loss and of each metric.
            The backward pass down to the adapters runs at once.

    Returns:
        The summed loss. Its gradient continues from the adapters to the network that generated
        them.
    """
    leaves = generated.map(lambda t: t.detach().requires_grad_())
    value, tokens, metrics = 0.0, 0, Counter[str]()
    for rows in microbatches:
        part = compute(rows, leaves)
        part.loss.backward()  # type: ignore[no-untyped-call]
        value += part.loss.item()
        tokens += part.tokens
        metrics.update(part.metrics)
    # Linear in the adapters, with their gradients as factors: its own gradient equals theirs.
    surrogate = torch.stack(
        [
            (t * leaf.grad).sum()
            for side, cut in ((generated.a, leaves.a), (generated.b, leaves.b))
            for t, leaf in zip(side.values(), cut.values(), strict=True)
            if leaf.grad is not None
        ]
    ).sum()
    return StepResult(surrogate - surrogate.detach() + value, tokens, dict(metrics))
