"""The losses of supervised fine-tuning, on scores of response tokens.

The vocabulary is large: with 49,152 tokens, the scores of one short batch take 60 MB in fp32.
Therefore the training loss and the reported loss use the same log-sum-exp, which a compiler fuses
into one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hypernet.lora import LoraBatch
from hypernet.packing import PackedBatch


def token_losses(scores: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, section 7), and without it. Both
    [S], fp32.

    Args:
        scores: [S, vocabulary].
        targets: [S].
        smoothing: fraction of the target's probability that is spread over the vocabulary.
    """
    scores = scores.float()
    total = scores.logsumexp(-1)  # [S]
    nll = total - scores.gather(-1, targets[:, None])[:, 0]
    spread = total - scores.mean(-1)
    return (1 - smoothing) * nll + smoothing * spread, nll


fused_token_losses = torch.compile(token_losses, dynamic=True)
"""`token_losses` in one pass. The first call compiles it."""


def sft_loss(
    scores: Tensor,
    packed: PackedBatch,
    adapters: LoraBatch,
    *,
    label_smoothing: float,
    adapter_penalty: float,
    fused: bool = False,
) -> tuple[Tensor, Tensor]:
    """The training loss, and the negative log-likelihood of each example.

    Cross-entropy is averaged over the response tokens of each example, then over examples. The
    penalty is `adapter_penalty` * sum over modules of mean A^2 + mean B^2.
    """
    losses = fused_token_losses if fused else token_losses
    smooth, nll = losses(scores, packed.targets, label_smoothing)
    penalty = sum(t.square().mean() for t in (*adapters.a.values(), *adapters.b.values()))
    loss = packed.mean_per_example(smooth).mean() + adapter_penalty * penalty
    return loss, packed.mean_per_example(nll)


def example_nll(scores: Tensor, packed: PackedBatch) -> Tensor:
    """Mean negative log-likelihood per response token of each example, in nats. [K]."""
    return packed.mean_per_example(F.cross_entropy(scores.float(), packed.targets, reduction="none"))


def contrastive_loss(own: Tensor, other: Tensor, margin: float) -> Tensor:
    """Zero once another task's adapter is worse by the margin. Two [K] -> scalar.

    `own` is detached: the loss may make the wrong adapter worse, never the right one.
    """
    return F.relu(margin + own.detach() - other).mean()
