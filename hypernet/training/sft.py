"""Supervised fine-tuning: the description goes to the hypernetwork alone, the input to the base model.

    description -> hypernetwork -> LoRA
    input -> frozen base + LoRA -> cross-entropy of the output

T2L section 4.2. Prompts never hold the description, so whatever of it the answer
needs must pass through the adapter.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hypernet.base_model import lora_spec
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.model import Hypernet, LoraBatch
from hypernet.training.config import SftConfig
from hypernet.training.data import Task, load_tasks, validation_share
from hypernet.training.loop import RunState, StepResult, Trainer
from hypernet.training.packing import ChatFormat, Example, Packed, fit_row, pack

VALIDATION_EXAMPLES = 8
TEMPLATES = (
    "{}",
    "Task: {}",
    "{} Answer only.",
    "Your job: {}",
    "You are given an input. {}",
    "{} Nothing else.",
)
"""Dress for tasks that come with few wordings: the same request, said with more or fewer words."""


class Embeddings:
    """Embeds each text once. Encoding all wordings ahead would take longer than many short runs."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        """[n, e]."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, self._encoder.encode(fresh), strict=True))
        return torch.stack([self._known[text] for text in texts])


@dataclass(slots=True)
class TrainingTask:
    """A task with its examples tokenised and its wordings spread out."""

    wordings: list[str]
    examples: list[Example]
    held_out: list[str]

    @property
    def mean_length(self) -> float:
        """Tokens of an average example."""
        return sum(len(e.prompt) + len(e.response) for e in self.examples) / len(self.examples)


def prepare(task: Task, chat: ChatFormat, max_tokens: int) -> TrainingTask | None:
    """Tokenise a task's examples, leaving out those above `max_tokens`; None if none is left."""
    examples = [chat.example(i.input, i.output[0]) for i in task.instances]
    examples = [e for e in examples if len(e.prompt) + len(e.response) <= max_tokens]
    wordings = task.wordings
    if task.definition and task.definition not in wordings:
        wordings = [*wordings, task.definition]
    if len(wordings) < 20:
        wordings = [template.format(w) for w in wordings for template in TEMPLATES]
    return TrainingTask(wordings, examples, task.held_out_wordings) if len(examples) >= 5 else None


def sft_loss(
    logits: Tensor, packed: Packed, adapters: LoraBatch, *, label_smoothing: float, adapter_penalty: float
) -> tuple[Tensor, Tensor]:
    """The training loss, and the plain negative log-likelihood per token for the log.

    Cross-entropy is averaged over each example's response tokens, then over
    examples; the penalty is `adapter_penalty` * sum over modules of mean A^2 + mean B^2.
    """
    smooth = F.cross_entropy(logits, packed.targets, label_smoothing=label_smoothing, reduction="none")  # [S]
    penalty = sum(t.square().mean() for t in (*adapters.a.values(), *adapters.b.values()))
    loss = packed.mean_per_example(smooth).mean() + adapter_penalty * penalty
    with torch.no_grad():
        plain = packed.mean_per_example(F.cross_entropy(logits, packed.targets, reduction="none")).mean()
    return loss, plain


class SftRun:
    """One SFT run: what it trains on, and the step and validation that the loop calls."""

    def __init__(self, config: SftConfig, tasks: list[Task], base: FrozenBase, encoder: Encoder) -> None:
        self.config, self.base, self.encoder = config, base, encoder
        self.embed = Embeddings(encoder)
        torch.manual_seed(config.seed)
        self.model = Hypernet(
            HypernetConfig(
                lora=base.spec,
                variant=config.variant,
                embedding_size=encoder.size,
                latent_size=config.latent_size,
                head_input_size=config.head_input_size,
                dropout=config.dropout,
            )
        ).to(base.device)
        training, validation = validation_share(tasks, config.validation_share)
        self.tasks = self._prepare(training)
        self._weights = [t.mean_length**-config.short_task_preference for t in self.tasks]
        self._validation = self._prepare(validation)

    def step(self, number: int) -> StepResult:
        """Loss on the batch that belongs to step `number`."""
        rng = random.Random(f"{self.config.seed}:{number}")
        tasks = rng.choices(self.tasks, self._weights, k=self.config.rows)
        rows = [
            fit_row(
                rng.sample(t.examples, min(self.config.row_examples, len(t.examples))), self.config.row_tokens
            )
            for t in tasks
        ]
        packed = pack(rows)
        adapters = self._adapters([rng.choice(t.wordings) for t in tasks])
        loss, nll = sft_loss(
            self.base.logits(packed, adapters),
            packed.to(self.base.device),
            adapters,
            label_smoothing=self.config.label_smoothing,
            adapter_penalty=self.config.adapter_penalty,
        )
        return StepResult(loss, packed.num_tokens, {"nll": nll.item(), "examples": len(packed.example_rows)})

    def validate(self) -> dict[str, float]:
        """Mean NLL over the validation tasks, with their own descriptions and with one another's."""
        own, other = [], []
        for i, task in enumerate(self._validation):
            packed = pack([task.examples[:VALIDATION_EXAMPLES]] * 2)
            stranger = self._validation[(i + 1) % len(self._validation)]
            adapters = self._adapters([task.held_out[0], stranger.held_out[0]])
            nll = F.cross_entropy(
                self.base.logits(packed, adapters), packed.targets.to(self.base.device), reduction="none"
            )
            per_example = packed.to(self.base.device).mean_per_example(nll)  # [2 * examples]
            mine, theirs = per_example.chunk(2)
            own.append(mine.mean().item())
            other.append(theirs.mean().item())
        return {"validation_nll": sum(own) / len(own), "validation_nll_mismatched": sum(other) / len(other)}

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
            },
        )
        save_checkpoint(folder, self.model, config)

    def _adapters(self, descriptions: list[str]) -> LoraBatch:
        embeddings = self.embed(descriptions).to(self.base.device)
        adapters: LoraBatch = self.model(embeddings)
        return adapters

    def _prepare(self, tasks: list[Task]) -> list[TrainingTask]:
        ready = [prepare(task, self.base.chat, self.config.max_example_tokens) for task in tasks]
        return [task for task in ready if task]


def train_sft(
    tasks: Path,
    out: Path,
    config: SftConfig,
    *,
    base_model: Path,
    encoder: str | None = None,
    device: str = "cpu",
    resume: bool = False,
) -> RunState:
    """Train a hypernetwork; the best checkpoint lands in `out/best`.

    Args:
        tasks: a task file, see `data.load_tasks`.
        out: the run's folder; an unfinished run there is taken up if `resume`.
        config: the run.
        base_model: a transformers folder.
        encoder: a folder or hub id; None is the embedded one.
        device: a torch device.
        resume: go on from `out/state.pt`.

    Raises:
        FileExistsError: `out` holds a run and `resume` is off.
        TaskFileError: the task file cannot be read.
    """
    if (out / "state.pt").exists() and not resume:
        raise FileExistsError(
            f"{out} holds a run already: add --resume to go on with it, or name another folder"
        )
    spec = lora_spec(
        base_model / "config.json",
        rank=config.rank,
        alpha=config.alpha,
        use_rslora=config.use_rslora,
        target_modules=config.target_modules,
    )
    run = SftRun(config, load_tasks(tasks), FrozenBase(base_model, spec, device), Encoder.load(encoder, device))
    trainer = Trainer(out, run.model, config, run.step, run.validate, run.save)
    if resume:
        trainer.resume()
    return trainer.run()
