"""Plain LoRAs by supervised fine-tuning: no description, no hypernetwork, the same data and the
same loss.

Here: one LoRA for all tasks, the baseline of a hypernetwork. It learns the form of the answers
without reading a description, and scores well. `oracle.py` trains one LoRA per task.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from hypernet.checkpoint import CheckpointError
from hypernet.config import LoraSpec
from hypernet.data.tasks import load_all, load_descriptions, with_descriptions
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.lora import LoraBatch, LoraWeights
from hypernet.packing import Example, pack
from hypernet.peft_io import save_adapter
from hypernet.training.batches import Batches
from hypernet.training.config import MultitaskConfig
from hypernet.training.loop import RunState, StepResult, Trainer, check_folder
from hypernet.training.losses import example_nll, sft_loss
from hypernet.training.mean_lora import mean_lora
from hypernet.training.progress import Reporter
from hypernet.training.training_data import TrainingData, report_tasks, training_data
from hypernet.training.validation import mean_by_form, prompt_forms


class StaticLora(nn.Module):
    """K plain LoRAs as parameters, with the start of PEFT: Kaiming A, B = 0.

    Args:
        spec: their shape.
        seeds: one per LoRA. The start of a LoRA depends on its seed only.
    """

    def __init__(self, spec: LoraSpec, seeds: list[int]) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.A, self.B = nn.ParameterDict(), nn.ParameterDict()
        for m in spec.modules:
            shape = (spec.num_layers, spec.rank, m.in_features)
            bound = m.in_features**-0.5  # Kaiming-uniform with a = sqrt(5)
            self.A[m.name] = nn.Parameter(
                torch.stack([(2 * torch.rand(shape, generator=g) - 1) * bound for g in generators])
            )
            self.B[m.name] = nn.Parameter(torch.zeros(len(seeds), spec.num_layers, m.out_features, spec.rank))

    def copy_from(self, adapter: LoraWeights) -> None:
        """Set all of them to an adapter of their shape."""
        with torch.no_grad():
            for name in self.A:
                self.A[name].copy_(adapter.a[name])
                self.B[name].copy_(adapter.b[name])

    def forward(self) -> LoraBatch:
        """All of them: A [K, L, r, in] and B [K, L, out, r] per module."""
        return LoraBatch(dict(self.A), dict(self.B))

    def values(self) -> LoraBatch:
        """All of them without a graph, on the CPU."""
        return self.forward().map(lambda t: t.detach().cpu())


class MultitaskRun:
    """One LoRA for all training tasks, on the batches that `SftRun` draws with the same seed.

    Args:
        config: the run.
        data: its tasks.
        base: the frozen base model.
    """

    def __init__(self, config: MultitaskConfig, data: TrainingData, base: FrozenBase) -> None:
        self.config, self.base = config, base
        self.model = StaticLora(base.spec, [config.seed]).to(base.device)
        if config.compile:
            base.compile()
        self.tasks, self.validation = data.training, data.validation
        self.batches = Batches(self.tasks, config, base.chat)

    def start_from(self, checkpoint: Path, encoder: str | None) -> None:
        """Start at the LoRA that is nearest to the LoRAs of a hypernetwork, see `mean_lora`.

        The LoRA then has what the network has learnt about all tasks, and equal numbers of steps
        are equal training.

        Raises:
            CheckpointError: it is no checkpoint, or generates LoRAs of another shape.
            MismatchError: it is for another base model or encoder.
        """
        generator = Generator.load(checkpoint, encoder, self.base.device, str(self.base.folder))
        generator.check_base_model(self.base.folder)
        if generator.spec != self.base.spec:
            raise CheckpointError(f"{checkpoint} generates {generator.spec}, this run trains {self.base.spec}")
        self.model.copy_from(
            mean_lora(generator, [task.paraphrases[0] for task in self.tasks], self.batches.weights)
        )

    def step(self, number: int) -> StepResult:
        """Loss on the batch that belongs to step `number`."""
        config = self.config
        packed = pack(self.batches.draw(number).rows, config.row_multiple).to(self.base.device)
        adapters = self.model()
        loss, nll = sft_loss(
            self.base.logits(packed, adapters),
            packed,
            adapters,
            label_smoothing=config.label_smoothing,
            adapter_penalty=config.adapter_penalty,
            fused=config.compile,
        )
        metrics = {"nll": nll.mean().item(), "examples": len(packed.example_rows)}
        return StepResult(loss, packed.num_tokens, metrics)

    def validate(self) -> dict[str, float]:
        """Mean NLL over the validation tasks, the same as those of a hypernetwork's run."""
        losses = []
        by_form: list[tuple[str, float]] = []
        for task in self.validation:
            losses.append(self._nll(task.examples[: self.config.validation_examples]))
            forms = prompt_forms(task, task.held_out[0], self.config, self.base.chat)
            by_form += [(form, self._nll(row)) for form, row in forms.items()]
        return {"validation_nll": sum(losses) / len(losses)} | mean_by_form(by_form)

    def _nll(self, row: list[Example]) -> float:
        packed = pack([row]).to(self.base.device)
        return example_nll(self.base.logits(packed, self.model()), packed).mean().item()

    def save(self, folder: Path, state: RunState) -> None:
        """Write the LoRA as a PEFT folder."""
        facts = {
            "t2l.method": "multitask",
            "t2l.base_model": self.base.fingerprint,
            "t2l.steps": str(state.step),
            "t2l.tasks": str(len(self.tasks)),
            "t2l.validation_nll": f"{state.best:.4f}",
        }
        save_adapter(folder, self.model.values().split(self.base.spec)[0], self.base.name, facts)


def train_multitask(
    tasks: list[Path],
    out: Path,
    config: MultitaskConfig,
    *,
    base_model: Path,
    encoder: str | None = None,
    device: str = "cpu",
    start: Path | None = None,
    descriptions: Path | None = None,
    resume: bool = False,
) -> RunState:
    """Train one LoRA for all tasks. The best one is in `out/best`, as a PEFT folder.

    Arguments and errors are those of `sft.train_sft`, except that `start` is a hypernetwork (see
    `MultitaskRun.start_from`) and `encoder` is its encoder.
    """
    check_folder(out, resume)
    given = load_all(tasks)
    if descriptions:
        given = with_descriptions(given, load_descriptions(descriptions))
    reporter = Reporter()
    with reporter.phase("loading the base model"):
        base = FrozenBase(base_model, config.lora_spec(base_model), device)
    with reporter.phase(f"tokenising {len(given)} tasks"):
        data = training_data(given, config, base.chat)
    report_tasks(data, out, reporter)
    data.check(config)
    run = MultitaskRun(config, data, base)
    if start:
        with reporter.phase("loading the hypernetwork to start from"):
            run.start_from(start, encoder)
    trainer = Trainer(
        out,
        run.model,
        config,
        run.step,
        run.validate,
        run.save,
        reporter=reporter,
        validate_first=start is not None,
    )
    if resume:
        trainer.resume()
    return trainer.run()
