"""One training step of a hypernetwork: the loss of a batch, microbatch by microbatch."""

from __future__ import annotations

import random

from torch import Tensor

from hypernet.frozen import FrozenBase
from hypernet.lora import LoraBatch
from hypernet.packing import num_answers, pack
from hypernet.training.adapter_source import AdapterSource
from hypernet.training.batches import Batch, Batches
from hypernet.training.config import SftConfig
from hypernet.training.distributed import Workers
from hypernet.training.grad_accumulation import accumulate_gradients
from hypernet.training.loop import StepResult
from hypernet.training.losses import contrastive_loss, example_nll, sft_loss
from hypernet.training.neftune import noise, noisy
from hypernet.training.training_tasks import TrainingTask


class SftStep:
    """Computes the loss of a step.

    Args:
        config: the run.
        base: the frozen base model.
        adapters: texts -> adapters, by the hypernetwork in training.
        batches: draws tasks, examples and descriptions.
        workers: the processes of the run. This one computes its rows of every batch.
    """

    def __init__(
        self,
        config: SftConfig,
        base: FrozenBase,
        adapters: AdapterSource,
        batches: Batches,
        workers: Workers,
    ) -> None:
        self.config, self.base, self.adapters = config, base, adapters
        self.batches, self.workers = batches, workers

    def __call__(self, number: int) -> StepResult:
        """This process's part of the loss on the batch of step `number`."""
        config = self.config
        batch = self._draw(number)
        mine = self.workers.local_rows(len(batch.rows))
        return accumulate_gradients(
            self.adapters(batch.descriptions),
            [mine[i :: config.accumulate] for i in range(config.accumulate)],
            lambda chosen, adapters: self._microbatch(number, batch, chosen, adapters),
        )

    def _draw(self, number: int) -> Batch:
        """The batch of a step.

        A Hyperdecoder reads each example's input in place of a description.
        """
        if self.config.reads == "description":
            return self.batches.draw(number)
        rng = random.Random(f"{self.config.seed}:{number}")
        tasks = rng.choices(self.batches.tasks, self.batches.weights, k=self.config.rows)
        rows = [[rng.choice(task.examples)] for task in tasks]
        return Batch(tasks, [row[0].text for row in rows], rows)

    def _microbatch(self, number: int, batch: Batch, chosen: list[int], adapters: LoraBatch) -> StepResult:
        """The chosen rows' part of the batch's loss and metrics,
        which are means over its examples.
        """
        config, base, rows = self.config, self.base, batch.rows
        packed = pack([rows[i] for i in chosen], config.row_multiple)
        share = len(packed.example_rows) / sum(map(num_answers, rows))
        added = None
        if config.neftune_alpha:
            keys = [random.Random(f"{config.seed}:{number}:{i}").getrandbits(62) for i in chosen]
            added = noise(packed, keys, base.model.config.hidden_size, config.neftune_alpha)
        packed = packed.to(base.device)
        own = adapters.take(chosen)
        with noisy(base.model.get_input_embeddings(), added):
            logits = base.logits(packed, own)
        loss, nll = sft_loss(
            logits,
            packed,
            own,
            label_smoothing=config.label_smoothing,
            adapter_penalty=config.adapter_penalty * len(chosen) / len(rows) / share,  # a mean over rows
            fused=config.compile,
        )
        metrics = {"nll": nll.mean().item() * share, "examples": len(packed.example_rows)}
        result = StepResult(loss * share, packed.num_tokens, metrics)
        return self._contrast(result, nll, batch, chosen, adapters) if config.contrast else result

    def _contrast(
        self, result: StepResult, nll: Tensor, batch: Batch, chosen: list[int], adapters: LoraBatch
    ) -> StepResult:
        """Add the contrastive loss: the first rows again, under the adapter of another row's task.

        Args:
            result: the microbatch without it.
            nll: [examples of the chosen rows], under their own adapters.
        """
        config, base, rows = self.config, self.base, batch.rows
        metrics = result.metrics | {"nll_stranger": 0.0}  # in every process, whichever has the rows
        contrasted = [i for i in chosen if i < config.contrast_rows]  # they come first among the chosen
        if not contrasted:
            return StepResult(result.loss, result.tokens, metrics)
        again = pack([rows[i] for i in contrasted]).to(base.device)
        mismatched = adapters.take([_mismatched_row(batch.tasks, i) for i in contrasted])
        other = example_nll(base.logits(again, mismatched), again)  # [first examples of the chosen rows]
        part = len(other) / sum(map(num_answers, rows[: config.contrast_rows]))
        apart = contrastive_loss(nll[: len(other)], other, config.contrast_margin)
        metrics["nll_stranger"] = other.mean().item() * part
        return StepResult(
            result.loss + config.contrast * part * apart, result.tokens + again.num_tokens, metrics
        )


def _mismatched_row(tasks: list[TrainingTask], i: int) -> int:
    """The next row with another task; the row itself only if the batch holds a single task."""
    n = len(tasks)
    return next((j % n for j in range(i + 1, i + n) if tasks[j % n] is not tasks[i]), i)
