"""Imports checkpoints of the published Text-to-LoRA reference.

A reference checkpoint is a folder with `hypermod.pt` (a pickled state dict), `args.yaml` (the flags
of the training run) and `adapter_config.json` (from PEFT). The flags alone determine the
architecture and the meaning of its outputs. A misread flag gives adapters that load and are
meaningless, so every relevant flag is checked against the other flags and against the tensors.
Errors name the flag.

Source: Charakorn et al. 2025 (arXiv 2506.06105), section 3 and its published code.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from torch import Tensor

from hypernet.base_model import fingerprint, has_weights
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig, LoraSpec
from hypernet.encoder import BASE_MODEL, last_token_fingerprint, sentence_fingerprint
from hypernet.errors import T2lError
from hypernet.model import Hypernet
from hypernet.peft_io import read_spec

ARGS_FILE = "args.yaml"
WEIGHTS_FILE = "hypermod.pt"


class ReferenceImportError(T2lError):
    """A reference checkpoint that cannot be imported.

    The message names the file and the flag or tensor.
    """


class ReferenceArgs(BaseModel):
    """Flags of `args.yaml` that determine the network or the meaning of its outputs.

    Others are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model_dir: str = Field(min_length=1)
    """The base model: a hub id or a folder."""
    emb_model: str
    """The description encoder. Empty for runs that used the last-token state of the base model."""
    exp_setup: Literal["hyper_lora"]
    use_one_hot_task_emb: Literal[False] = False
    use_per_task_emb: Literal[True] = True
    learnable_AB_offset: Literal[False] = False
    training_task: Literal["sft", "recon"]
    target_modules: list[str]
    hypernet_latent_size: StrictInt = Field(gt=0, multiple_of=4)
    head_in_size: StrictInt = Field(gt=0)
    shared_AB_head: StrictBool
    autoreg_gen: StrictBool
    learnable_pos_emb: StrictBool
    mt_lora_path: str | None
    pred_z_score: StrictBool
    factorized: StrictBool | None = None
    delta_w_scaling: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The last two flags are absent from older SFT runs. Reconstruction runs need them."""


class Reference(NamedTuple):
    """A reference checkpoint as read."""

    model: Hypernet
    """In fp32 and evaluation mode."""
    args: ReferenceArgs


def load_reference(src: Path, base: Path | dict[str, Any]) -> Reference:
    """Read a reference checkpoint.

    Args:
        src: folder with `hypermod.pt`, `args.yaml`, `adapter_config.json`.
        base: the base model's folder, its `config.json`, or the fields of that file. No weights are
            needed.

    Raises:
        ReferenceImportError: a file, flag or tensor is missing, wrong, or contradicts another.
        AdapterFileError: `adapter_config.json` cannot be read or describes another kind of adapter.
        BaseModelError: the base model's config cannot be used.
    """
    args = read_args(src / ARGS_FILE)
    spec = read_spec(src, base)
    if {m.name for m in spec.modules} != set(args.target_modules):
        raise ReferenceImportError(
            f"{src / ARGS_FILE}: target_modules is {args.target_modules}, "
            f"adapter_config.json has {[m.name for m in spec.modules]}"
        )
    state = _read_weights(src / WEIGHTS_FILE)
    model = Hypernet(_config(src, args, spec, state))
    model.load_state_dict(_renamed(src / WEIGHTS_FILE, state, model.state_dict()))
    return Reference(model.eval(), args)


def import_reference(src: Path, dst: Path, base: Path, encoder: Path | None = None) -> CheckpointConfig:
    """Convert a reference checkpoint to one of ours, in fp32. Its adapters stay what they were.

    Of the base model only `config.json` is needed, of the encoder nothing. Weights that are present
    are recorded by fingerprint. Otherwise the checkpoint records the model's name, and loading it
    checks shapes (see `generator.Generator.check_base_model` and `generator.check_encoder`).

    Args:
        src: folder with `hypermod.pt`, `args.yaml`, `adapter_config.json`.
        dst: checkpoint folder to write.
        base: folder of the base model, with or without weights.
        encoder: folder of the description encoder, with weights; None: only its name is recorded.
            Ignored if the run used the base model's own last-token state.

    Raises:
        ReferenceImportError, AdapterFileError, BaseModelError: as `load_reference`.
    """
    model, args = load_reference(src, base)
    config = CheckpointConfig(
        hypernet=model.config,
        base_model=ModelIdentity(
            name=args.model_dir, fingerprint=fingerprint(base) if has_weights(base) else None
        ),
        encoder=_encoder_identity(args, base, encoder),
        training={"imported_from": "the published Text-to-LoRA reference"} | args.model_dump(),
    )
    save_checkpoint(dst, model, config, torch.float32)
    return config


def _encoder_identity(args: ReferenceArgs, base: Path, encoder: Path | None) -> ModelIdentity:
    if args.emb_model:
        return ModelIdentity(
            name=args.emb_model,
            fingerprint=sentence_fingerprint(encoder, args.emb_model) if encoder else None,
        )
    return ModelIdentity(
        name=BASE_MODEL, fingerprint=last_token_fingerprint(base) if has_weights(base) else None
    )


def read_args(path: Path) -> ReferenceArgs:
    """Read and check `args.yaml`.

    Raises:
        ReferenceImportError: a flag is missing, wrong or contradicts another.
    """
    try:
        args = ReferenceArgs.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ReferenceImportError(
            f"{path} does not exist: a reference checkpoint is a folder with hypermod.pt, args.yaml and "
            "adapter_config.json"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReferenceImportError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        flag = ".".join(map(str, problem["loc"])) or "the file"
        got = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        raise ReferenceImportError(f"{path}: {flag}: {problem['msg']}{got}") from error
    contradiction = _contradiction(args)
    if contradiction:
        raise ReferenceImportError(f"{path}: {contradiction}")
    return args


def _contradiction(args: ReferenceArgs) -> str | None:
    """The first contradiction between two flags, or None."""
    if args.learnable_pos_emb and not args.autoreg_gen:
        return "learnable_pos_emb is true, but autoreg_gen is false: there are no rank positions to learn"
    if args.training_task == "sft":
        return None
    for flag in ("factorized", "delta_w_scaling"):
        if getattr(args, flag) is None:
            return f"{flag} is missing, and training_task is recon"
    if args.mt_lora_path is not None:
        return f"mt_lora_path is {args.mt_lora_path!r}, but training_task recon has no offset"
    if args.pred_z_score and not args.factorized:
        return "pred_z_score is true, but factorized is false: z-scores are of A and B, not of their product"
    return None


def _config(src: Path, args: ReferenceArgs, spec: LoraSpec, state: dict[str, Tensor]) -> HypernetConfig:
    """The architecture, from the flags, and from the tensors for what no flag tells."""
    task = state.get("task_encoder.mlp.0.weight")  # [d/2, e]
    if task is None or task.ndim != 2:
        raise ReferenceImportError(f"{src / WEIGHTS_FILE}: tensor task_encoder.mlp.0.weight is missing")
    output: Literal["direct", "offset", "z_score", "delta_w"] = "direct"
    if args.training_task == "recon":
        output = "z_score" if args.pred_z_score else "direct" if args.factorized else "delta_w"
    elif args.mt_lora_path is not None:
        output = "offset"
    elif any(bool(t.any()) for name, t in state.items() if name.startswith("AB_offset.")):
        raise ReferenceImportError(f"{src / ARGS_FILE}: mt_lora_path is null, but AB_offset is not zero")
    return HypernetConfig(
        lora=spec,
        variant=_VARIANTS[args.shared_AB_head, args.autoreg_gen],
        embedding_size=task.shape[1],
        latent_size=args.hypernet_latent_size,
        head_input_size=args.head_in_size,
        rank_position="learned" if args.learnable_pos_emb else "rotary",
        head_bias=args.mt_lora_path is None if args.training_task == "sft" else not args.pred_z_score,
        output=output,
        delta_w_scaling=args.delta_w_scaling or 10_000.0,
    )


_VARIANTS: dict[tuple[bool, bool], Literal["L", "L-rank", "M", "S"]] = {
    (False, False): "L",
    (False, True): "L-rank",
    (True, False): "M",
    (True, True): "S",
}

# first word of our name -> prefix in the reference, and the flags that determine the tensor's shape
_NAMES: dict[str, tuple[str, str]] = {
    "task": ("task_encoder.mlp", "hypernet_latent_size"),
    "depth": ("layer_depth_encoder", "hypernet_latent_size and the base model's num_hidden_layers"),
    "kind": ("layer_type_encoder", "hypernet_latent_size and target_modules"),
    "mixer": ("mixer", "hypernet_latent_size"),
    "block1": ("mlp1.mlp", "hypernet_latent_size"),
    "block2": ("mlp2.mlp", "hypernet_latent_size"),
    "block3": ("mlp3", "hypernet_latent_size and head_in_size"),
    "heads": (
        "heads",
        "head_in_size, shared_AB_head, autoreg_gen, training_task, mt_lora_path, pred_z_score, "
        "r in adapter_config.json and the base model",
    ),
    "part": ("out_emb", "shared_AB_head"),
    "part_norm": ("out_emb_norm", "shared_AB_head"),
    "rank": ("pos_emb", "autoreg_gen and learnable_pos_emb"),
    "offset": ("AB_offset", "mt_lora_path"),
    "mean": ("mean_recon_target", "pred_z_score"),
    "deviation": ("std_recon_target", "pred_z_score"),
}
# The reference always stores these tensors. They are zero where they are unused.
_OPTIONAL = ("AB_offset.", "mean_recon_target.", "std_recon_target.")


def _renamed(path: Path, state: dict[str, Tensor], needed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's tensors under our names. Every tensor is checked and none is left over."""
    rest = dict(state)

    def take(name: str, shape: torch.Size, flags: str) -> Tensor:
        tensor = rest.pop(name, None)
        if tensor is None:
            raise ReferenceImportError(f"{path}: tensor {name} is missing, see {flags}")
        if tensor.shape != shape:
            found, wanted = tuple(tensor.shape), tuple(shape)
            raise ReferenceImportError(f"{path}: tensor {name} has shape {found}, needs {wanted}, see {flags}")
        if not bool(tensor.isfinite().all()):
            raise ReferenceImportError(f"{path}: tensor {name} has values that are not finite")
        return tensor

    renamed: dict[str, Tensor] = {}
    for name, like in needed.items():
        word, _, tail = name.partition(".")
        prefix, flags = _NAMES[word]
        if word == "part":  # [2, d]: the embeddings of A and of B, stacked
            parts = [take(f"{prefix}.{tail}.{side}", like.shape[1:], flags) for side in "AB"]
            renamed[name] = torch.stack(parts)
        else:
            renamed[name] = take(f"{prefix}.{tail}", like.shape, flags)
    for name in sorted(rest):
        if not name.startswith(_OPTIONAL):
            known = [flags for prefix, flags in _NAMES.values() if name.startswith(f"{prefix}.")]
            raise ReferenceImportError(
                f"{path}: tensor {name} is unexpected, see {', '.join(known) or ARGS_FILE}"
            )
    return renamed


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict, read with torch's restricted unpickler, which runs no code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ReferenceImportError(f"{path} cannot be read as plain tensors: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ReferenceImportError(f"{path} is not a state dict of tensors")
    return state
