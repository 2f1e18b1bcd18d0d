"""Supervised fine-tuning: the description goes to the hypernetwork, the input to the base model.

    description -> hypernetwork -> LoRA
    input -> frozen base + LoRA -> cross-entropy of the output

T2L section 4.2. With bare prompts, everything that the answer needs of the description must pass
through the adapter. A share of the prompts may also hold the description or solved examples
(`prompt_shares`).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from hypernet.checkpoint import (
    CheckpointConfig,
    CheckpointError,
    ModelIdentity,
    load_checkpoint,
    save_checkpoint,
)
from hypernet.config import HypernetConfig
from hypernet.data.tasks import Task, load_all, load_descriptions, with_descriptions
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.model import Hypernet
from hypernet.peft_io import load_adapter_like
from hypernet.training.adapter_source import AdapterSource
from hypernet.training.batches import Batches
from hypernet.training.config import SftConfig, TrainingConfigError
from hypernet.training.distributed import Workers, process_group
from hypernet.training.loop import RunState, Trainer, check_folder
from hypernet.training.progress import Reporter
from hypernet.training.sft_step import SftStep
from hypernet.training.sft_validation import SftValidation
from hypernet.training.training_data import TrainingData, report_tasks, training_data


class SftRun:
    """The parts of one SFT run: a hypernetwork, its step, its validation and its checkpoints.

    Args:
        config: the run.
        data: its tasks.
        base: the frozen base model.
        encoder: embeds the descriptions.
        workers: the processes of the run; None is this one alone.

    Raises:
        TrainingConfigError: more processes and passes than rows.
        InvalidLoraError: `config.offset` is no adapter of this shape.
    """

    def __init__(
        self,
        config: SftConfig,
        data: TrainingData,
        base: FrozenBase,
        encoder: Encoder,
        workers: Workers | None = None,
    ) -> None:
        self.config, self.data, self._base, self._encoder = config, data, base, encoder
        workers = workers or Workers(base.device)
        if config.rows < workers.count * config.accumulate:
            raise TrainingConfigError(
                f"rows: {config.rows} rows cannot be divided among {workers.count} processes with "
                f"{config.accumulate} passes each"
            )
        if config.compile:
            base.compile()
        self.model = new_hypernet(config, base, encoder.size)
        self.adapters = AdapterSource(encoder, self.model, base.device)
        self.batches = Batches(data.training, config, base.chat)
        # Each is the next one's mismatched task: in file order that would often be a
        # near-duplicate.
        self.validation = list(data.validation)
        random.Random(config.seed).shuffle(self.validation)
        self.step = SftStep(config, base, self.adapters, self.batches, workers)
        self.validate = SftValidation(config, base, self.adapters, self.validation)
        self._started_from: dict[str, Any] | None = None

    def start_from(self, folder: Path) -> None:
        """Take over the weights of a checkpoint.

        Raises:
            CheckpointError: it is no checkpoint, or has another architecture.
        """
        trained, config = load_checkpoint(folder)
        without_dropout = {"dropout": self.model.config.dropout}  # it has no weights
        if config.hypernet.model_copy(update=without_dropout) != self.model.config:
            raise CheckpointError(f"{folder} has another architecture than this run: {config.hypernet}")
        self.model.load_state_dict(trained.state_dict())
        self._started_from = config.training

    def save(self, folder: Path, state: RunState) -> None:
        """Write the network as a servable checkpoint."""
        config = CheckpointConfig(
            hypernet=self.model.config,
            base_model=ModelIdentity(name=self._base.name, fingerprint=self._base.fingerprint),
            encoder=ModelIdentity(name=self._encoder.name, fingerprint=self._encoder.fingerprint),
            training={
                "method": "sft",
                "steps": state.step,
                "minutes": round(state.seconds / 60, 1),
                "tasks": len(self.data.training),
                "validation_nll": round(state.best, 4),
                "config": self.config.model_dump(mode="json"),
            }
            | ({"start": self._started_from} if self._started_from else {}),
        )
        save_checkpoint(folder, self.model, config)


def new_hypernet(config: SftConfig, base: FrozenBase, embedding_size: int) -> Hypernet:
    """The network at its start: Bias-HyperInit, or zero on top of the LoRA that `config.offset`
    names.
    """
    torch.manual_seed(config.seed)
    model = Hypernet(
        HypernetConfig(
            lora=base.spec,
            variant=config.variant,
            embedding_size=embedding_size,
            latent_size=config.latent_size,
            head_input_size=config.head_input_size,
            dropout=config.dropout,
            output="offset" if config.offset else "direct",
            head_bias=not config.offset,
        )
    ).to(base.device)
    if config.offset:
        model.offset.copy_from(load_adapter_like(Path(config.offset), base.spec))
    return model


def sft_data(
    tasks: list[Task], config: SftConfig, base: FrozenBase, *, only: str | None = None, count: int | None = None
) -> TrainingData:
    """The tasks of an SFT run, see `training_data`; with one description each if the run wants
    that.
    """
    data = training_data(tasks, config, base.chat, only=only, count=count)
    if config.paraphrases == "definition":
        definitions = {task.task: task.definition or task.paraphrases[0] for task in tasks}
        for task in data.training:
            task.paraphrases = [definitions[task.name]]
    return data


def train_sft(
    tasks: list[Path],
    out: Path,
    config: SftConfig,
    *,
    base_model: Path,
    encoder: str | None = None,
    device: str = "cpu",
    start: Path | None = None,
    only: str | None = None,
    count: int | None = None,
    descriptions: Path | None = None,
    resume: bool = False,
) -> RunState:
    """Train a hypernetwork. The best checkpoint is in `out/best`.

    Args:
        tasks: task files, see `tasks.load_tasks`.
        out: the run's folder; an unfinished run there is continued if `resume`.
        config: the run.
        base_model: a transformers folder.
        encoder: as `Encoder.load` takes it; None is the bundled one.
        device: a torch device. Under torchrun each process takes its part of the rows, on its own
            GPU.
        start: a checkpoint of the same shape to start from, instead of Bias-HyperInit.
        only, count: train on some of the tasks that have enough short examples, see
            `tasks.select_names`.
        descriptions: a file of further descriptions, see `tasks.load_descriptions`.
        resume: continue from `out/state.pt`.

    Raises:
        FileExistsError: `out` holds a run and `resume` is off.
        CheckpointError: `start` is no checkpoint, or has another architecture.
        InvalidLoraError: `config.offset` is no adapter of this shape.
        TaskFileError: a file cannot be read, or holds too few tasks that are short enough.
        TrainingConfigError: more processes and passes than rows.
    """
    check_folder(out, resume)
    given = load_all(tasks)
    if descriptions:
        given = with_descriptions(given, load_descriptions(descriptions))
    with process_group(device) as team:
        reporter = Reporter(shown=team.is_main)
        with reporter.phase("loading the base model"):
            base = FrozenBase(base_model, config.lora_spec(base_model), team.device)
        with reporter.phase("loading the encoder"):
            reader = Encoder.load(encoder, team.device, str(base_model))
        with reporter.phase(f"tokenising {len(given)} tasks"):
            data = sft_data(given, config, base, only=only, count=count)
        if team.is_main:
            report_tasks(data, out, reporter)
        data.check(config)
        run = SftRun(config, data, base, reader, team)
        if start:
            run.start_from(start)
        trainer = Trainer(
            out,
            run.model,
            config,
            run.step,
            run.validate,
            run.save,
            workers=team,
            reporter=reporter,
            validate_first=start is not None,
        )
        if resume:
            trainer.resume()
        return trainer.run()
