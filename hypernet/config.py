"""What a LoRA looks like and what a hypernetwork is: the two typed records everything else reads.

Both are frozen and reject unknown keys, so that a checkpoint's `config.json` is
either understood in full or refused by the name of the field that is wrong.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Record(BaseModel):
    """A frozen, strict pydantic record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_problem(error: ValidationError, whole: str = "the file") -> str:
    """The first thing that pydantic found wrong, behind the name of its field: "rank: must be above 0".

    Args:
        error: what it raised.
        whole: what to name where no field is to blame.
    """
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


class ModuleShape(Record):
    """One linear layer that a LoRA adapts, in every decoder layer of the base model."""

    path: str = Field(pattern=r"^[a-z_]+\.[a-z_]+$")
    """Where it sits in a decoder layer, e.g. `self_attn.q_proj`."""
    in_features: int = Field(gt=0)
    out_features: int = Field(gt=0)

    @property
    def name(self) -> str:
        """The short name that PEFT's `target_modules` uses, e.g. `q_proj`."""
        return self.path.rsplit(".", 1)[-1]


class LoraSpec(Record):
    """Every shape of one LoRA, and the scale with which it is applied.

    The scale is part of the adapter: `alpha / rank`, or `alpha / sqrt(rank)` under
    rank-stabilised LoRA (Kalajdzievski 2023). PEFT and vLLM both read it from
    `adapter_config.json`, so the flag travels with the weights everywhere.
    """

    rank: int = Field(gt=0, le=512)
    alpha: float = Field(gt=0)
    use_rslora: bool = False
    num_layers: int = Field(gt=0)
    modules: tuple[ModuleShape, ...] = Field(min_length=1)
    """Their order is the module index that the hypernetwork embeds."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> LoraSpec:
        if len({module.name for module in self.modules}) != len(self.modules):
            raise ValueError("modules: two modules share a name")
        return self

    @property
    def scaling(self) -> float:
        """The factor on B A x."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    @property
    def num_parameters(self) -> int:
        """Numbers in one adapter, A and B together."""
        per_layer = sum(m.in_features + m.out_features for m in self.modules) * self.rank
        return per_layer * self.num_layers


class HypernetConfig(Record):
    """The architecture of a hypernetwork, without its weights (T2L, Charakorn et al. 2025, section 3)."""

    lora: LoraSpec
    variant: Literal["L", "L-rank", "M", "S"]
    """What one head emits: A and B at once (L), one rank of both (L-rank), A or B (M), one rank of one (S)."""
    embedding_size: int = Field(gt=0)
    """Length e of a description's embedding."""
    latent_size: int = Field(default=128, gt=0, multiple_of=4)
    """Width d of the trunk."""
    head_input_size: int = Field(default=512, gt=0)
    """Width h of what the heads read."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    rank_position: Literal["rotary", "learned"] = "rotary"
    """How the variants that emit one rank at a time are told which rank it is."""
    head_bias: bool = True
    """Off where an offset or a z-score already carries the starting point."""
    output: Literal["direct", "offset", "z_score", "delta_w"] = "direct"
    """How head outputs become weights: as they are; plus a frozen LoRA; de-normalised
    with the mean and deviation of a library; or divided by sqrt(delta_w_scaling)."""
    delta_w_scaling: float = Field(default=10_000.0, gt=0)
