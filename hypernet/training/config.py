"""Settings of training runs: one strict record for each method, read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
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
    """Length of a run and its optimiser: all settings that the training loop reads."""

    steps: int | None = Field(default=None, gt=0)
    """Maximum number of steps."""
    minutes: float | None = Field(default=None, gt=0)
    """Maximum minutes of training, summed over resumptions.

    The nearer limit sets the learning rate.
    """
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Fraction of the run in which the learning rate rises linearly.

    Then it falls to zero along a cosine.
    """
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Limit on the norm of the gradients."""
    validate_minutes: float = Field(default=6.0, gt=0)
    """Minutes of training between validations."""
    seed: int = 0


class FineTuning(Schedule):
    """Supervised fine-tuning of LoRAs through the frozen base model,
    of a hypernetwork's or of plain ones.
    """

    rank: int = 8
    alpha: float = 16.0
    use_rslora: bool = False
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")

    rows: int = Field(default=12, gt=0)
    """Rows of a batch. Each has one task, one description and one LoRA."""
    row_tokens: int = Field(default=192, gt=0)
    """Maximum tokens of a row. It is filled with examples of its task."""
    row_examples: int = Field(default=12, gt=0)
    """Maximum examples of a row, so that tasks with short examples do not outweigh others."""
    max_example_tokens: int = Field(default=150, gt=0)
    """Maximum tokens of an example.

    Longer ones are left out, and tasks with fewer than five shorter ones.
    """
    short_task_preference: float = Field(default=0.5, ge=0)
    """Tasks are drawn with weight (mean example length)^-preference. 0: all alike."""
    derived_share: float = Field(default=0.25, ge=0, le=1)
    """Fraction of the draws that goes to built tasks (`Task.derived`), independent of their number.
    """

    compile: bool = False
    """Compile the base model's layers and the loss. That takes minutes in the first step, and a CPU
    needs a C++ compiler. Leave it off for runs of a few minutes."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    adapter_penalty: float = Field(default=1e-3, ge=0)
    """Weight of mean A^2 + mean B^2, summed over modules."""

    validation_share: float = Field(default=0.08, gt=0, lt=1)
    """Fraction of the tasks that choose the checkpoint and do not train.

    A hash of the names selects them.
    """
    validation_examples: int = Field(default=8, gt=0)
    """Maximum examples of each validation task.

    Validation on many long tasks costs as much as many steps.
    """

    @property
    def row_multiple(self) -> int:
        """Row lengths are rounded up to a multiple of this.

        Compiled code needs one length for all steps.
        """
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
    """Fine-tuning on batches of many tasks, for a hypernetwork or for one LoRA."""

    prompt_shares: dict[PromptForm, float] = Field(default={"bare": 1.0}, min_length=1)
    """Fractions of the rows by what their prompts hold beside the input: nothing (`bare`), the
    task's `description`, or solved `examples` of the task."""
    max_shots: int = Field(default=5, gt=0)
    """Maximum solved examples of a prompt.

    Each row draws a number from 1 to this, and takes as many as fit.
    """
    same_group: float = Field(default=0.0, ge=0, le=1)
    """Fraction of a batch's rows that are different tasks over the same kind of input, where there
    are any. Only their descriptions tell such tasks apart."""
    group_balance: float = Field(default=0.0, ge=0, le=1)
    """The tasks of a group are drawn with weight (size of the group)^-group_balance. At 1, a whole
    group is drawn as often as one task."""
    description_noise: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the descriptions that get noise: typos, other casing, no full stop, polite words.
    """
    drop_near_duplicates: bool = False
    """Drop training tasks that answer the inputs of a validation task as that task does."""

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
    """Input of the network: the task's description, or each example's input. The latter is
    Hyperdecoders (Ivison & Peters 2022), a baseline with one adapter for every input and one
    example a row."""
    paraphrases: Literal["all", "definition"] = "all"
    """Descriptions to train on: all of a task, or its definition alone (the first description where
    there is none)."""
    offset: str | None = None
    """Folder of a PEFT adapter, such as a multi-task LoRA. The output of the network is added to
    it, and training starts at it."""
    neftune_alpha: float = Field(default=0.0, ge=0)
    """Noise on the input embeddings in training, see `neftune.py`. 0: none."""
    accumulate: int = Field(default=1, gt=0)
    """Passes of the base model in each step.

    More passes need less memory (gradient accumulation).
    """

    contrast: float = Field(default=0.0, ge=0)
    """Weight of the contrastive loss: another task's adapter has to be worse by the margin.

    0: none.
    """
    contrast_rows: int = Field(default=4, gt=0)
    """Rows of a batch that are also run under another row's adapter."""
    contrast_margin: float = Field(default=1.0, gt=0)
    """Margin of the contrastive loss, in nats per response token."""


class OracleConfig(FineTuning):
    """One plain LoRA per task, `rows` tasks at a time:
    the library of reconstruction (T2L section 4.1).
    """

    learning_rate: float = Field(default=2e-3, gt=0)
    adapter_penalty: float = Field(default=0.0, ge=0)
    start: Literal["shared", "own"] = "shared"
    """All LoRAs start at the same random A, or each at its own. Training changes A little. With
    `own`, no two oracles have a basis in common, so that a hypernetwork has to memorise noise."""
    choose_every: int = Field(default=20, gt=0)
    """Steps between evaluations of the examples that choose each task's best step."""
    choose_one_of: int = Field(default=7, gt=1)
    """Every so many-th training example of a task chooses its best step instead of training."""


class ReconstructionConfig(Schedule):
    """A hypernetwork that learns to reproduce the LoRAs of a library (T2L section 4.1)."""

    variant: Literal["L", "L-rank", "M", "S"] = "L"
    target: Literal["factors", "delta_w"] = "factors"
    """Target of the loss: A and B as z-scores over the library, or their product B A."""
    delta_w_scaling: float = Field(default=10_000.0, gt=0)
    """Factor on the products. Their entries are tiny."""
    latent_size: int = 128
    head_input_size: int = 512
    dropout: float = Field(default=0.05, ge=0, lt=1)
    tasks: int = Field(default=4, gt=0)
    """LoRAs in a batch."""
    descriptions: int = Field(default=128, gt=0)
    """Maximum descriptions of each task."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=1e-3, ge=0)


class DistillationConfig(Schedule):
    """A small hypernetwork that learns to reproduce the output of a trained one."""

    variant: Literal["L", "L-rank", "M", "S"] = "M"
    latent_size: int = 128
    head_input_size: int = 512
    dropout: float = Field(default=0.0, ge=0, lt=1)
    descriptions: int = Field(default=8, gt=0)
    """Descriptions of a batch, each of another draw of a task."""
    learning_rate: float = Field(default=2e-3, gt=0)
    validation_share: float = Field(default=0.08, gt=0, lt=1)
    """Fraction of the tasks whose descriptions choose the checkpoint.

    A hash of the names chooses them.
    """


AnySchedule = TypeVar("AnySchedule", bound=Schedule)


def assignments(pairs: Sequence[str]) -> dict[str, object]:
    """`NAME=VALUE` texts from the command line -> fields. Values are YAML.

    Raises:
        TrainingConfigError: a text has no "=", or its value is no YAML.
    """
    for pair in pairs:
        if "=" not in pair:
            raise TrainingConfigError(f"--set {pair}: write NAME=VALUE, as in --set learning_rate=1e-3")
    split = (pair.partition("=") for pair in pairs)
    return {name.strip(): _yaml(value, f"--set {name}") for name, _, value in split}


def load_config(
    kind: type[AnySchedule], path: Path | None, pairs: Sequence[str] | None = None, **overrides: object
) -> AnySchedule:
    """Read a YAML file (None: the defaults), then apply options and `--set` pairs, which win in
    this order.

    Args:
        kind: the record to read.
        path: the YAML file.
        pairs: `NAME=VALUE` texts, see `assignments`.
        overrides: values of options; None leaves the field alone.

    Raises:
        TrainingConfigError: naming the field; an unknown one with the nearest name.
    """
    if path and not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise TrainingConfigError(f"{path} {problem}: --config takes a YAML file, as in hypernet/configs")
    try:
        raw = _yaml(path.read_text(), str(path)) if path else {}
    except UnicodeDecodeError as error:
        raise TrainingConfigError(f"{path}: is no text: {error}") from error
    if not isinstance(raw, dict):
        raise TrainingConfigError(f"{path}: needs a mapping of field names to values")
    given = {k: v for k, v in overrides.items() if v is not None} | assignments(pairs or ())
    try:
        config = kind.model_validate({**raw, **given})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        where = "--set" if name in assignments(pairs or ()) else f"--{name}" if name in given else path
        problem = first_problem(error)
        if error.errors()[0]["type"] == "extra_forbidden":
            near = get_close_matches(name, kind.model_fields, n=1)
            known = f"did you mean {near[0]}?" if near else f"known are {', '.join(kind.model_fields)}"
            problem = f"{name}: unknown field; {known}"
        raise TrainingConfigError(f"{where}: {problem}") from error
    if config.steps is None and config.minutes is None:
        raise TrainingConfigError("the length of the run is not set: give --steps or --minutes")
    return config


def _yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingConfigError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
