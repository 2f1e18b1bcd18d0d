"""Distillation: a small hypernetwork learns to reproduce the LoRAs of a large one.

    description -> teacher -> LoRA
    description -> student -> LoRA, the same B A

M and S learn slowly through a base model, and such steps are slow. A trained L generates a LoRA for
any description at almost no cost, so they learn from it first: thousands of descriptions a minute
instead of a few hundred. The loss compares products B A, so that the student may find factors that
suit its shared heads.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch

from hypernet.checkpoint import CheckpointConfig, load_checkpoint, save_checkpoint
from hypernet.data.tasks import Task, TaskFileError, load_all, split_validation
from hypernet.encoder import Encoder
from hypernet.generator import check_encoder
from hypernet.model import Hypernet
from hypernet.training.config import DistillationConfig
from hypernet.training.distance import squared_relative_error
from hypernet.training.embedding_cache import EmbeddingCache
from hypernet.training.loop import RunState, StepResult, Trainer, check_folder
from hypernet.training.progress import Reporter
from hypernet.training.training_tasks import training_paraphrases


class DistillationRun:
    """One run: the teacher, the student, and the step and validation that the loop calls.

    Args:
        config: the run.
        teacher: a checkpoint folder.
        tasks: teacher and student read their descriptions.
        encoder: the encoder of the teacher.
        device: a torch device.
    """

    def __init__(
        self,
        config: DistillationConfig,
        teacher: Path,
        tasks: list[Task],
        encoder: Encoder,
        device: str = "cpu",
    ) -> None:
        self.config, self.device = config, device
        self._teacher, self._about = load_checkpoint(teacher)
        check_encoder(teacher, self._about, encoder)
        self._teacher.to(device).eval()
        self.embed = EmbeddingCache(encoder)
        torch.manual_seed(config.seed)
        shape = self._about.hypernet.model_copy(
            update={
                "variant": config.variant,
                "latent_size": config.latent_size,
                "head_input_size": config.head_input_size,
                "dropout": config.dropout,
                "output": "direct",
                "head_bias": True,
            }
        )
        self.model = Hypernet(shape).to(device)
        training, validation = split_validation(tasks, config.validation_share)
        if not training or not validation:
            raise TaskFileError(
                f"{len(training)} tasks to train on and {len(validation)} to choose the checkpoint with are "
                f"too few: give more tasks, or change validation_share ({config.validation_share})"
            )
        self._paraphrases = [training_paraphrases(task) for task in training]
        self._validation = [task.held_out_paraphrases[0] for task in validation]

    def step(self, number: int) -> StepResult:
        """Squared relative error on the descriptions that belong to step `number`."""
        rng = random.Random(f"{self.config.seed}:{number}")
        texts = [rng.choice(w) for w in rng.choices(self._paraphrases, k=self.config.descriptions)]
        embeddings = self.embed(texts).to(self.device)
        with torch.no_grad():
            target = self._teacher(embeddings)
        return StepResult(squared_relative_error(self.model(embeddings), target).mean(), 0, {})

    def validate(self) -> dict[str, float]:
        """Mean relative error |B A - B* A*| / |B* A*| on descriptions of the validation tasks."""
        embeddings = self.embed(self._validation).to(self.device)
        error = squared_relative_error(self.model(embeddings), self._teacher(embeddings)).sqrt()
        return {"relative_error": error.mean().item()}

    def save(self, folder: Path, state: RunState) -> None:
        """Write the student as a servable checkpoint."""
        config = CheckpointConfig(
            hypernet=self.model.config,
            base_model=self._about.base_model,
            encoder=self._about.encoder,
            training={
                "method": "distillation",
                "steps": state.step,
                "minutes": round(state.seconds / 60, 1),
                "relative_error": round(state.best, 4),
                "config": self.config.model_dump(mode="json"),
                "teacher": self._about.training,
            },
        )
        save_checkpoint(folder, self.model, config)


def train_distillation(
    teacher: Path,
    tasks: list[Path],
    out: Path,
    config: DistillationConfig,
    *,
    encoder: str | None = None,
    base_model: str | None = None,
    device: str = "cpu",
    resume: bool = False,
) -> RunState:
    """Train a student on a teacher's adapters. The best checkpoint is in `out/best`.

    Args:
        teacher: a checkpoint folder.
        tasks: task files, for their descriptions.
        out: the run's folder; an unfinished run there is continued if `resume`.
        config: the run.
        encoder, base_model: as `Encoder.load` takes them.
        device: a torch device.
        resume: continue from `out/state.pt`.

    Raises:
        FileExistsError: `out` holds a run and `resume` is off.
        CheckpointError: `teacher` is no checkpoint.
        MismatchError: the encoder is not the teacher's.
        TaskFileError: a task file cannot be read, or there are too few tasks.
    """
    check_folder(out, resume)
    every = load_all(tasks)
    reporter = Reporter()
    with reporter.phase("loading the encoder"):
        reader = Encoder.load(encoder, device, base_model)
    run = DistillationRun(config, teacher, every, reader, device)
    trainer = Trainer(out, run.model, config, run.step, run.validate, run.save, reporter=reporter)
    if resume:
        trainer.resume()
    return trainer.run()
