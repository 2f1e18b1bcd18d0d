"""The shapes of a LoRA and the architecture of a hypernetwork, as typed records.

Records are frozen and reject unknown keys. So a checkpoint's `config.json` is either understood in
full, or refused with the name of the wrong field.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Record(BaseModel):
    """A frozen, strict pydantic record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_problem(error: ValidationError, whole: str = "the file") -> str:
    """The first error of a validation, after the name of its field: "rank: must be above 0".

    Args:
        error: the validation error.
        whole: the name to use where the error belongs to no field.
    """
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


class ModuleShape(Record):
    """A linear layer that a LoRA adapts in every decoder layer of the base model."""

    path: str = Field(pattern=r"^[a-z_]+\.[a-z_]+$")
    """Path in a decoder layer, such as `self_attn.q_proj`."""
    in_features: int = Field(gt=0)
    out_features: int = Field(gt=0)

    @property
    def name(self) -> str:
        """Short name, as in PEFT's `target_modules`: `q_proj`."""
        return self.path.rsplit(".", 1)[-1]


class LoraSpec(Record):
    """All shapes of a LoRA, and its scale.

    The scale is `alpha / rank`, or `alpha / sqrt(rank)` for rank-stabilised LoRA (Kalajdzievski
    2023). It is part of the adapter: PEFT and vLLM read `use_rslora` from `adapter_config.json`.
    """

    rank: int = Field(gt=0, le=512)
    alpha: float = Field(gt=0)
    use_rslora: bool = False
    num_layers: int = Field(gt=0)
    modules: tuple[ModuleShape, ...] = Field(min_length=1)
    """The order is the module index that the hypernetwork embeds."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> LoraSpec:
        if len({module.name for module in self.modules}) != len(self.modules):
            raise ValueError("modules: two modules share a name")
        return self

    @property
    def scaling(self) -> float:
        """Factor of B A x."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    @property
    def num_parameters(self) -> int:
        """Number of weights in one adapter, A and B together."""
        per_layer = sum(m.in_features + m.out_features for m in self.modules) * self.rank
        return per_layer * self.num_layers


class HypernetConfig(Record):
    """The architecture of a hypernetwork, without its weights (T2L, Charakorn et al.

    2025, section 3).
    """

    lora: LoraSpec
    variant: Literal["L", "L-rank", "M", "S"]
    """Output of a head: A and B (L), one rank of A and B (L-rank), A or B (M),
    or one rank of A or B (S).
    """
    embedding_size: int = Field(gt=0)
    """Size e of a description's embedding."""
    latent_size: int = Field(default=128, gt=0, multiple_of=4)
    """Hidden size d."""
    head_input_size: int = Field(default=512, gt=0)
    """Input size h of the heads."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    rank_position: Literal["rotary", "learned"] = "rotary"
    """Rank embedding of the variants that generate one rank at a time."""
    head_bias: bool = True
    """False where an offset or z-scores provide the initial LoRA."""
    output: Literal["direct", "offset", "z_score", "delta_w"] = "direct"
    """How head outputs become weights: unchanged; added to a frozen LoRA; multiplied by a library's
    standard deviation and added to its mean; or divided by sqrt(delta_w_scaling)."""
    delta_w_scaling: float = Field(default=10_000.0, gt=0)
