"""Everything that a training run can be told, as one strict record read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator

from hypernet.base_model import lora_spec
from hypernet.config import LoraSpec, Record, first_problem
from hypernet.errors import T2lError


class TrainingConfigError(T2lError):
    """A training configuration with a wrong or unknown field; the message names it."""


class Schedule(Record):
    """How long a run lasts and how its optimiser steps: all that the training loop reads."""

    steps: int | None = Field(default=None, gt=0)
    """Length of the run in steps, or ..."""
    minutes: float | None = Field(default=None, gt=0)
    """... in minutes of training, summed over resumptions. The schedule follows whichever is nearer its end."""
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the run that the learning rate rises linearly; then it falls to zero along a cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    validate_minutes: float = Field(default=6.0, gt=0)
    seed: int = 0


class FineTuning(Schedule):
    """Supervised fine-tuning of LoRAs through the frozen base model, whatever writes them."""

    rank: int = 8
    alpha: float = 16.0
    use_rslora: bool = False
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")

    rows: int = Field(default=12, gt=0)
    """Tasks in a batch; each gets one row, one description and one LoRA."""
    row_tokens: int = Field(default=192, gt=0)
    """Token budget of a row: as many examples of its task as fit."""
    row_examples: int = Field(default=12, gt=0)
    """At most so many examples in a row, so that very short tasks leave room for others."""
    max_example_tokens: int = Field(default=150, gt=0)
    """Longer examples are left out; so are tasks with nothing shorter."""
    short_task_preference: float = Field(default=0.5, ge=0)
    """Tasks are drawn with weight (mean example length)^-preference: 0 is uniform."""
    derived_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the draws that goes to derived tasks (`families/`), however many there are."""

    compile: bool = False
    """Compile the base model's layers and the loss; the first steps pay for it. CPUs need a C++ compiler."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    adapter_penalty: float = Field(default=1e-3, ge=0)
    """Factor on mean A^2 + mean B^2, summed over modules."""

    validation_share: float = Field(default=0.08, gt=0, lt=1)
    """Share of the training tasks, chosen by a hash of their names, held back to choose the checkpoint."""
    validation_examples: int = Field(default=8, gt=0)
    """Examples of each validation task. A validation of many long tasks costs as much as many steps."""

    @property
    def row_multiple(self) -> int:
        """What the length of a batch's rows is rounded up to: compiled code wants the same one every time."""
        return self.row_tokens if self.compile else 32

    def lora_spec(self, base_model: Path) -> LoraSpec:
        """The shapes of its LoRAs for a base model's folder.

        Raises:
            BaseModelError: the family or a module is unknown.
        """
        return lora_spec(
            base_model,
            rank=self.rank,
            alpha=self.alpha,
            use_rslora=self.use_rslora,
            target_modules=self.target_modules,
        )


PromptForm = Literal["bare", "description", "examples"]


class MultitaskConfig(FineTuning):
    """Fine-tuning on batches of many tasks: how a batch is put together, for a hypernetwork or one LoRA."""

    prompt_shares: dict[PromptForm, float] = Field(default={"bare": 1.0}, min_length=1)
    """Shares of the rows by what their prompts hold beside the input: nothing, the task's description, or
    solved examples of the task."""
    max_shots: int = Field(default=5, gt=0)
    """Rows with solved examples have from one to so many of them, as many as fit."""
    same_group: float = Field(default=0.0, ge=0, le=1)
    """Share of a batch's rows that are different tasks over the same kind of input, where there are any:
    only their descriptions tell them apart."""
    group_balance: float = Field(default=0.0, ge=0, le=1)
    """The tasks of a group are drawn with weight (size of the group)^-group_balance: at 1 a whole group is
    drawn as often as one task."""
    description_noise: float = Field(default=0.0, ge=0, le=1)
    """Share of the descriptions that are roughened: typos, other casing, no full stop, polite words."""
    drop_near_duplicates: bool = False
    """Leave out training tasks that answer inputs of a validation task as it does."""

    @field_validator("prompt_shares")
    @classmethod
    def _shares(cls, shares: dict[PromptForm, float]) -> dict[PromptForm, float]:
        if min(shares.values()) < 0 or sum(shares.values()) <= 0:
            raise ValueError("shares must not be negative, and one must be above 0")
        return shares


class SftConfig(MultitaskConfig):
    """Supervised fine-tuning of a hypernetwork through the frozen base model (T2L section 4.2)."""

    variant: Literal["L", "L-rank", "M", "S"] = "L"
    latent_size: int = 128
    head_input_size: int = 512
    dropout: float = 0.05

    reads: Literal["description", "input"] = "description"
    """What the network is asked: the task's description, or each example's input. The latter is
    Hyperdecoders (Ivison & Peters 2022), a baseline with an adapter for every input, one example a row."""
    paraphrases: Literal["all", "definition"] = "all"
    """Descriptions to train on: all of a task, or its definition alone (the first description where there
    is none), to see what many paraphrases are good for."""
    offset: str | None = None
    """Folder of a PEFT adapter, a multi-task LoRA, to which what the network writes is added. Training
    starts at that LoRA."""
    neftune_alpha: float = Field(default=0.0, ge=0)
    """Noise on the input embeddings while training, see `neftune.py`; 0 is none."""
    accumulate: int = Field(default=1, gt=0)
    """Passes of the base model over which each process spreads its rows of a batch, to save memory."""

    contrast: float = Field(default=0.0, ge=0)
    """Weight of the contrastive loss: another task's adapter must do worse on an example, by the margin."""
    contrast_rows: int = Field(default=4, gt=0)
    """How many rows of a batch are also run under another row's adapter."""
    contrast_margin: float = Field(default=1.0, gt=0)
    """In nats per response token."""


class OracleConfig(FineTuning):
    """One plain LoRA per task, `rows` tasks side by side: what reconstruction imitates (T2L section 4.1)."""

    learning_rate: float = Field(default=2e-3, gt=0)
    adapter_penalty: float = Field(default=0.0, ge=0)
    start: Literal["shared", "own"] = "shared"
    """Every LoRA starts at the same random A, or each at its own. Most of A stays its start: with A's of
    their own no two oracles share a basis, so their mean means nothing and a hypernetwork has to
    memorise noise."""
    choose_every: int = Field(default=20, gt=0)
    """Steps between looks at the examples that choose each task's best step."""
    choose_one_of: int = Field(default=7, gt=1)
    """One of so many training examples of a task is not trained on but chooses its best step."""


class ReconstructionConfig(Schedule):
    """A hypernetwork that learns to write the LoRAs of a library (T2L section 4.1)."""

    variant: Literal["L", "L-rank", "M", "S"] = "L"
    target: Literal["factors", "delta_w"] = "factors"
    """What is compared: A and B as z-scores over the library, or their product."""
    delta_w_scaling: float = Field(default=10_000.0, gt=0)
    """Factor on the products, whose entries are tiny."""
    latent_size: int = 128
    head_input_size: int = 512
    dropout: float = Field(default=0.05, ge=0, lt=1)
    tasks: int = Field(default=4, gt=0)
    """LoRAs in a batch."""
    descriptions: int = Field(default=128, gt=0)
    """Of each task at most so many descriptions are used."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=1e-3, ge=0)


class DistillationConfig(Schedule):
    """A small hypernetwork that learns to write what a trained one writes."""

    variant: Literal["L", "L-rank", "M", "S"] = "M"
    latent_size: int = 128
    head_input_size: int = 512
    dropout: float = Field(default=0.0, ge=0, lt=1)
    descriptions: int = Field(default=8, gt=0)
    """In a batch; of one task each."""
    learning_rate: float = Field(default=2e-3, gt=0)
    validation_share: float = Field(default=0.08, gt=0, lt=1)
    """Share of the tasks, chosen by a hash of their names, whose descriptions choose the checkpoint."""


AnySchedule = TypeVar("AnySchedule", bound=Schedule)


def assignments(pairs: Sequence[str]) -> dict[str, object]:
    """`NAME=VALUE` texts, as they stand on a command line -> fields; values are read as YAML's are.

    Raises:
        TrainingConfigError: a text without "=", or a value that is no YAML.
    """
    for pair in pairs:
        if "=" not in pair:
            raise TrainingConfigError(f"--set {pair}: write NAME=VALUE, as in --set learning_rate=1e-3")
    split = (pair.partition("=") for pair in pairs)
    return {name.strip(): _yaml(value, f"--set {name}") for name, _, value in split}


def load_config(kind: type[AnySchedule], path: Path | None, **overrides: object) -> AnySchedule:
    """Read a YAML file (None: the defaults); overrides that are not None win.

    Raises:
        TrainingConfigError: naming the field.
    """
    if path and not path.is_file():
        raise TrainingConfigError(f"{path} does not exist: --config takes a YAML file, as in hypernet/configs")
    raw = _yaml(path.read_text(), str(path)) if path else {}
    if not isinstance(raw, dict):
        raise TrainingConfigError(f"{path}: needs a mapping of field names to values")
    try:
        config = kind.model_validate({**raw, **{k: v for k, v in overrides.items() if v is not None}})
    except ValidationError as error:
        raise TrainingConfigError(f"{path or 'options'}: {first_problem(error)}") from error
    if config.steps is None and config.minutes is None:
        raise TrainingConfigError("how long to train is not set: give --steps or --minutes")
    return config


def _yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingConfigError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
