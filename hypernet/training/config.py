"""Everything that a training run can be told, as one strict record read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from hypernet.config import Record


class TrainingConfigError(ValueError):
    """A training configuration with a wrong or unknown field; the message names it."""


class SftConfig(Record):
    """Supervised fine-tuning of a hypernetwork through the frozen base model (T2L section 4.2)."""

    variant: Literal["L", "L-rank", "M", "S"] = "L"
    rank: int = 8
    alpha: float = 16.0
    use_rslora: bool = False
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    latent_size: int = 128
    head_input_size: int = 512
    dropout: float = 0.05

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

    steps: int | None = Field(default=None, gt=0)
    """Length of the run in steps, or ..."""
    minutes: float | None = Field(default=None, gt=0)
    """... in minutes of training, summed over resumptions. The schedule follows whichever is nearer its end."""
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the run that the learning rate rises linearly; then it falls to zero along a cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    adapter_penalty: float = Field(default=1e-3, ge=0)
    """Factor on mean A^2 + mean B^2, summed over modules."""

    validation_share: float = Field(default=0.08, gt=0, lt=1)
    """Share of the training tasks, chosen by a hash of their names, held back to choose the checkpoint."""
    validate_minutes: float = Field(default=6.0, gt=0)
    seed: int = 0


def load_sft_config(path: Path | None, **overrides: object) -> SftConfig:
    """Read a YAML file (None: the defaults); overrides that are not None win.

    Raises:
        TrainingConfigError: naming the field.
    """
    raw = yaml.safe_load(path.read_text()) if path else {}
    if not isinstance(raw, dict):
        raise TrainingConfigError(f"{path}: needs a mapping of field names to values")
    try:
        config = SftConfig.model_validate({**raw, **{k: v for k, v in overrides.items() if v is not None}})
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if config.steps is None and config.minutes is None:
        raise TrainingConfigError("how long to train is not set: give --steps or --minutes")
    return config
