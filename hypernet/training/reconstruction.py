"""Reconstruction: the hypernetwork learns to reproduce the LoRAs of a library (T2L section 4.1).

    description -> hypernetwork -> LoRA, compared with the library's LoRA of that task

The base model is not loaded. Two targets:

    factors   mean |A - A*| and |B - B*| of z-scores: each weight in standard deviations over the
    library delta_w   scaling * mean |B A - B* A*|: other factors of the same product are as good

With `factors` the network starts at the mean of the library, with `delta_w` as a plain LoRA does.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor

from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.data.tasks import TaskFileError, load_all, select_names
from hypernet.encoder import Encoder
from hypernet.library import Library
from hypernet.lora import LoraBatch
from hypernet.model import Hypernet
from hypernet.training.config import ReconstructionConfig
from hypernet.training.distance import delta_w_distance, relative_error
from hypernet.training.embedding_cache import EmbeddingCache
from hypernet.training.loop import RunState, StepResult, Trainer, check_folder
from hypernet.training.progress import Reporter
from hypernet.training.training_tasks import training_paraphrases

VALIDATION_PARAPHRASES = 3
"""Descriptions of a task in validation; `t2l eval` scores as many under `training`."""


class ReconstructionRun:
    """One run: the library's LoRAs, their descriptions, and the step and validation that the loop
    calls.

    Args:
        config: the run.
        library: the LoRAs to reproduce.
        descriptions: task -> its paraphrases, for every task of the library.
        encoder: embeds the descriptions.
        device: a torch device.
    """

    def __init__(
        self,
        config: ReconstructionConfig,
        library: Library,
        descriptions: dict[str, list[str]],
        encoder: Encoder,
        device: str = "cpu",
    ) -> None:
        self.config, self.library, self.encoder, self.device = config, library, encoder, device
        self.embed = EmbeddingCache(encoder)
        self._paraphrases = [descriptions[name][: config.descriptions] for name in library]
        every = library.stack()
        self._targets = every.map(lambda t: t.to(device))
        torch.manual_seed(config.seed)
        self.model = Hypernet(
            HypernetConfig(
                lora=library.spec,
                variant=config.variant,
                embedding_size=encoder.size,
                latent_size=config.latent_size,
                head_input_size=config.head_input_size,
                dropout=config.dropout,
                head_bias=config.target == "delta_w",
                output="delta_w" if config.target == "delta_w" else "z_score",
                delta_w_scaling=config.delta_w_scaling,
            )
        )
        if config.target == "factors":
            mean, deviation = library.statistics()
            self.model.mean.copy_from(mean)
            self.model.deviation.copy_from(deviation)
        self.model.to(device)

    def step(self, number: int) -> StepResult:
        """Loss on the tasks that belong to step `number`:
        each pass over the library has a new order.
        """
        rng = random.Random(f"{self.config.seed}:{number}")
        index = self._batch(number)
        embeddings = self.embed([rng.choice(self._paraphrases[i]) for i in index])
        loss = self.losses(self.model(embeddings.to(self.device)), index).mean()
        return StepResult(loss, 0, {})

    def losses(self, adapters: LoraBatch, index: list[int]) -> Tensor:
        """The loss of each adapter against the library's LoRA of that number. [n]."""
        target = self._targets.take(index)
        per_module = [
            self._delta_w_loss(adapters, target, name)
            if self.config.target == "delta_w"
            else self._factor_loss(adapters, target, name)
            for name in adapters.a
        ]
        return torch.stack(per_module).mean(dim=0)

    def _delta_w_loss(self, adapters: LoraBatch, target: LoraBatch, name: str) -> Tensor:
        """[n]."""
        distance = delta_w_distance(adapters.a[name], adapters.b[name], target.a[name], target.b[name])
        return self.config.delta_w_scaling * distance

    def _factor_loss(self, adapters: LoraBatch, target: LoraBatch, name: str) -> Tensor:
        """[n].

        The difference divided by the deviation is the difference of z-scores: the means cancel.
        """
        a = (adapters.a[name] - target.a[name]) / (self.model.deviation.a(name) + 1e-10)  # [n, L, r, in]
        b = (adapters.b[name] - target.b[name]) / (self.model.deviation.b(name) + 1e-10)  # [n, L, out, r]
        return (a.abs().flatten(1).mean(dim=1) + b.abs().flatten(1).mean(dim=1)) / 2

    def validate(self) -> dict[str, float]:
        """Loss and relative error over the library, each task by its first descriptions; then each
        error.

        These are the tasks that train, so the numbers say how well the network keeps the library.
        `t2l eval` measures unseen tasks.
        """
        losses, errors = [], []
        for i in range(len(self.library)):
            some = self._paraphrases[i][:VALIDATION_PARAPHRASES]
            adapters, index = self.model(self.embed(some).to(self.device)), [i] * len(some)
            losses.append(self.losses(adapters, index).mean().item())
            errors.append(relative_error(adapters, self._targets.take(index)).mean().item())
        by_task = {f"error/{name}": error for name, error in zip(self.library, errors, strict=True)}
        return {"loss": sum(losses) / len(losses), "relative_error": sum(errors) / len(errors)} | by_task

    def save(self, folder: Path, state: RunState) -> None:
        """Write the network as a servable checkpoint."""
        config = CheckpointConfig(
            hypernet=self.model.config,
            base_model=self.library.base_model,
            encoder=ModelIdentity(name=self.encoder.name, fingerprint=self.encoder.fingerprint),
            training={
                "method": "reconstruction",
                "target": self.config.target,
                "steps": state.step,
                "minutes": round(state.seconds / 60, 1),
                "tasks": len(self.library),
                "loss": round(state.best, 6),
                "config": self.config.model_dump(mode="json"),
            },
        )
        save_checkpoint(folder, self.model, config)

    def _batch(self, number: int) -> list[int]:
        """The LoRAs of step `number`. Each occurs once in a pass over the library."""
        size = min(self.config.tasks, len(self.library))
        per_pass = -(-len(self.library) // size)
        order = list(range(len(self.library)))
        random.Random(f"{self.config.seed}:pass {number // per_pass}").shuffle(order)
        start = number % per_pass * size
        return order[start : start + size]


def train_reconstruction(
    library: Path,
    tasks: list[Path],
    out: Path,
    config: ReconstructionConfig,
    *,
    encoder: str | None = None,
    base_model: str | None = None,
    device: str = "cpu",
    only: str | None = None,
    count: int | None = None,
    resume: bool = False,
) -> RunState:
    """Train a hypernetwork to reproduce a library's LoRAs. The best checkpoint is in `out/best`.

    Args:
        library: a library's folder, see `hypernet.library`.
        tasks: task files with the descriptions of its tasks.
        out: the run's folder; an unfinished run there is continued if `resume`.
        config: the run.
        encoder, base_model: as `Encoder.load` takes them.
        device: a torch device.
        only, count: some of the library's tasks, see `tasks.select_names`.
        resume: continue from `out/state.pt`.

    Raises:
        FileExistsError: `out` holds a run and `resume` is off.
        LibraryError: the library cannot be read.
        TaskFileError: a task file cannot be read, or lacks a task of the library.
    """
    check_folder(out, resume)
    whole = Library.open(library)
    chosen = whole.subset(select_names(whole.names, only, count))
    reporter = Reporter()
    with reporter.phase("loading the encoder"):
        reader = Encoder.load(encoder, device, base_model)
    run = ReconstructionRun(config, chosen, _descriptions(tasks, chosen), reader, device)
    trainer = Trainer(out, run.model, config, run.step, run.validate, run.save, reporter=reporter)
    if resume:
        trainer.resume()
    return trainer.run()


def _descriptions(files: list[Path], library: Library) -> dict[str, list[str]]:
    """Task -> paraphrases, for the library's tasks."""
    tasks = {task.task: task for task in load_all(files)}
    missing = [name for name in library if name not in tasks]
    if missing:
        raise TaskFileError(
            f"no task file describes {', '.join(missing)}, of which {library.folder} has a LoRA"
        )
    return {name: training_paraphrases(tasks[name]) for name in library}
