"""Supervised fine-tuning: the description goes to the hypernetwork, the input to the base model.

    description -> hypernetwork -> LoRA
    input -> frozen base + LoRA -> cross-entropy of the output

T2L section 4.2. In bare prompts whatever the answer needs of the description must pass through the
adapter; a share of the prompts may hold the description or solved examples, too (`prompt_shares`).
"""

from __future__ import annotations

import random
from collections.abc import Collection
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
from hypernet.data.tasks import Task, load_descriptions, load_tasks, select_names, with_descriptions
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.lora import LoraBatch
from hypernet.model import Hypernet
from hypernet.packing import Example, num_answers, pack
from hypernet.peft_io import load_adapter_like
from hypernet.training.batches import Batches
from hypernet.training.config import SftConfig, TrainingConfigError
from hypernet.training.distributed import Workers, process_group
from hypernet.training.embedding_cache import EmbeddingCache
from hypernet.training.grad_accumulation import accumulate_gradients
from hypernet.training.loop import RunState, StepResult, Trainer, check_folder
from hypernet.training.losses import contrastive_loss, example_nll, sft_loss
from hypernet.training.neftune import noise, noisy
from hypernet.training.training_tasks import (
    TrainingTask,
    check_enough,
    prepare_all,
)
from hypernet.training.validation import mean_by_form, prompt_forms, split_tasks


class SftRun:
    """One SFT run: what it trains on, and the step and validation that the loop calls."""

    def __init__(
        self,
        config: SftConfig,
        tasks: list[Task],
        base: FrozenBase,
        encoder: Encoder,
        workers: Workers | None = None,
    ) -> None:
        self.config, self.base, self.encoder = config, base, encoder
        self.workers = workers or Workers(base.device)
        if config.rows < self.workers.count * config.accumulate:
            raise TrainingConfigError(
                f"rows: {config.rows} rows cannot be shared out to {self.workers.count} processes in "
                f"{config.accumulate} passes each"
            )
        self.embed = EmbeddingCache(encoder)
        torch.manual_seed(config.seed)
        self.model = Hypernet(
            HypernetConfig(
                lora=base.spec,
                variant=config.variant,
                embedding_size=encoder.size,
                latent_size=config.latent_size,
                head_input_size=config.head_input_size,
                dropout=config.dropout,
                output="offset" if config.offset else "direct",
                head_bias=not config.offset,
            )
        ).to(base.device)
        if config.offset:
            self.model.offset.copy_from(load_adapter_like(Path(config.offset), base.spec))
        if config.compile:
            base.compile()
        self._started_from: dict[str, Any] | None = None
        training, validation = split_tasks(tasks, config)
        self.tasks = prepare_all(training, base.chat, config.max_example_tokens)
        if config.paraphrases == "definition":
            said = {task.task: task.definition or task.paraphrases[0] for task in training}
            for ready in self.tasks:
                ready.paraphrases = [said[ready.name]]
        self._batches = Batches(self.tasks, config, base.chat)
        # Each is the next one's mismatched_task: in file order that would often be a near-twin.
        self.validation = prepare_all(validation, base.chat, config.max_example_tokens)
        random.Random(config.seed).shuffle(self.validation)

    def narrow(self, names: Collection[str]) -> None:
        """Train on these tasks only; validation stays as it is."""
        self.tasks = [task for task in self.tasks if task.name in names]
        self._batches = Batches(self.tasks, self.config, self.base.chat)

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

    def step(self, number: int) -> StepResult:
        """Loss on the batch that belongs to step `number`: this process's share of it."""
        config = self.config
        if config.reads == "input":
            rng = random.Random(f"{config.seed}:{number}")
            tasks = rng.choices(self.tasks, self._batches.weights, k=config.rows)
            rows = [[rng.choice(task.examples)] for task in tasks]
            written = self._adapters([row[0].text for row in rows])
        else:
            batch = self._batches.draw(number)
            tasks, rows = batch.tasks, batch.rows
            written = self._adapters(batch.descriptions)
        mine = self.workers.local_rows(len(rows))
        return accumulate_gradients(
            written,
            [mine[i :: config.accumulate] for i in range(config.accumulate)],
            lambda chosen, adapters: self._part(number, tasks, rows, chosen, adapters),
        )

    def _part(
        self,
        number: int,
        tasks: list[TrainingTask],
        rows: list[list[Example]],
        chosen: list[int],
        adapters: LoraBatch,
    ) -> StepResult:
        """What the chosen rows add to the batch's loss and metrics, which are means over its examples."""
        config, base = self.config, self.base
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
        loss = loss * share
        metrics = {"nll": nll.mean().item() * share, "examples": len(packed.example_rows)}
        tokens = packed.num_tokens
        if not config.contrast:
            return StepResult(loss, tokens, metrics)
        metrics["nll_stranger"] = 0.0  # there in every process, whoever has the rows
        contrasted = [i for i in chosen if i < config.contrast_rows]  # they come first among the chosen
        if contrasted:
            again = pack([rows[i] for i in contrasted]).to(base.device)
            mismatched = adapters.take([_mismatched_task(tasks, i) for i in contrasted])
            other = example_nll(base.logits(again, mismatched), again)  # [first examples of the chosen rows]
            part = len(other) / sum(map(num_answers, rows[: config.contrast_rows]))
            apart = contrastive_loss(nll[: len(other)], other, config.contrast_margin)
            loss = loss + config.contrast * part * apart
            metrics["nll_stranger"] = other.mean().item() * part
            tokens += again.num_tokens
        return StepResult(loss, tokens, metrics)

    def validate(self) -> dict[str, float]:
        """Mean NLL over the validation tasks, with their own descriptions and with one another's.

        Prompts are bare there. Of the other forms that the run trains with: own descriptions alone.
        """
        own, other = [], []
        by_form: list[tuple[str, float]] = []
        for i, task in enumerate(self.validation):
            examples = task.examples[: self.config.validation_examples]
            mismatched_task = self.validation[(i + 1) % len(self.validation)]
            if self.config.reads == "input":
                rows = [[example] for example in examples]
                mismatched = mismatched_task.examples[: len(examples)]
                mine = [example.text for example in examples]
                theirs = [mismatched[k % len(mismatched)].text for k in range(len(examples))]
            else:
                rows, mine, theirs = [examples], task.held_out[:1], mismatched_task.held_out[:1]
            packed = pack(rows * 2).to(self.base.device)
            nll = example_nll(self.base.logits(packed, self._adapters(mine + theirs)), packed)
            mine_nll, theirs_nll = nll.chunk(2)  # [examples] each
            own.append(mine_nll.mean().item())
            other.append(theirs_nll.mean().item())
            if self.config.reads == "description":
                by_form += self._validate_forms(task, mine[0])
        return {
            "validation_nll": sum(own) / len(own),
            "validation_nll_mismatched": sum(other) / len(other),
        } | mean_by_form(by_form)

    def _validate_forms(self, task: TrainingTask, description: str) -> list[tuple[str, float]]:
        """(form of prompt, NLL under the adapter of the description)."""
        forms = prompt_forms(task, description, self.config, self.base.chat)
        scores = []
        for form, row in forms.items():
            packed = pack([row]).to(self.base.device)
            nll = example_nll(self.base.logits(packed, self._adapters([description])), packed)
            scores.append((form, nll.mean().item()))
        return scores

    def save(self, folder: Path, state: RunState) -> None:
        """Write the network as a servable checkpoint."""
        config = CheckpointConfig(
            hypernet=self.model.config,
            base_model=ModelIdentity(name=self.base.name, fingerprint=self.base.fingerprint),
            encoder=ModelIdentity(name=self.encoder.name, fingerprint=self.encoder.fingerprint),
            training={
                "method": "sft",
                "steps": state.step,
                "minutes": round(state.seconds / 60, 1),
                "tasks": len(self.tasks),
                "validation_nll": round(state.best, 4),
                "config": self.config.model_dump(mode="json"),
            }
            | ({"start": self._started_from} if self._started_from else {}),
        )
        save_checkpoint(folder, self.model, config)

    def _adapters(self, descriptions: list[str]) -> LoraBatch:
        embeddings = self.embed(descriptions).to(self.base.device)
        adapters: LoraBatch = self.model(embeddings)
        return adapters


def _mismatched_task(tasks: list[TrainingTask], i: int) -> int:
    """The next row with another task; the row itself only if the batch holds a single task."""
    n = len(tasks)
    return next((j % n for j in range(i + 1, i + n) if tasks[j % n] is not tasks[i]), i)


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
    """Train a hypernetwork; the best checkpoint lands in `out/best`.

    Args:
        tasks: task files, see `tasks.load_tasks`.
        out: the run's folder; an unfinished run there is taken up if `resume`.
        config: the run.
        base_model: a transformers folder.
        encoder: as `Encoder.load` takes it; None is the embedded one.
        device: a torch device. Under torchrun each process takes its share of the rows, on its own GPU.
        start: a checkpoint of the same shape to start from, instead of Bias-HyperInit.
        only, count: train on some of the tasks that have enough short examples, see `tasks.select_names`.
        descriptions: a file of further descriptions, see `tasks.load_descriptions`.
        resume: go on from `out/state.pt`.

    Raises:
        FileExistsError: `out` holds a run and `resume` is off.
        CheckpointError: `start` is no checkpoint, or has another architecture.
        InvalidLoraError: `config.offset` is no adapter of this shape.
        TaskFileError: the task file cannot be read, or holds too few tasks that are short enough.
        TrainingConfigError: more processes and passes than rows.
    """
    check_folder(out, resume)
    every = [task for path in tasks for task in load_tasks(path)]
    if descriptions:
        every = with_descriptions(every, load_descriptions(descriptions))
    named = set(select_names([task.task for task in every], only))
    with process_group(device) as team:
        base = FrozenBase(base_model, config.lora_spec(base_model), team.device)
        run = SftRun(config, every, base, Encoder.load(encoder, team.device, str(base_model)), team)
        run.narrow(select_names([task.name for task in run.tasks if task.name in named], count=count))
        check_enough(run.tasks, run.validation, config)
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
            validate_first=start is not None,
        )
        if resume:
            trainer.resume()
        return trainer.run()
