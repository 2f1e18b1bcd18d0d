import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hypernet.checkpoint import (
    CheckpointConfig,
    CheckpointError,
    ModelIdentity,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from hypernet.config import HypernetConfig, LoraSpec, ModuleShape
from hypernet.model import Hypernet

SPEC = LoraSpec(
    rank=2,
    alpha=4,
    num_layers=2,
    modules=(ModuleShape(path="self_attn.q_proj", in_features=8, out_features=8),),
)
CONFIG = HypernetConfig(lora=SPEC, variant="M", embedding_size=8, latent_size=16, head_input_size=16)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    identity = ModelIdentity(name="tiny", fingerprint="00")
    config = CheckpointConfig(hypernet=CONFIG, base_model=identity, encoder=identity, training={"steps": 3})
    save_checkpoint(tmp_path, Hypernet(CONFIG), config, dtype=torch.float32)
    return tmp_path


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saving_and_loading_keeps_weights_and_config(saved: Path) -> None:
    model, config = load_checkpoint(saved)
    again, _ = load_checkpoint(saved)
    z = torch.randn(2, 8)
    assert config.hypernet == CONFIG
    assert torch.equal(model(z).a["q_proj"], again(z).a["q_proj"])
    assert not model.training


def test_fingerprint_covers_weights_and_architecture_but_not_training_record(saved: Path) -> None:
    before = fingerprint(saved)
    edit_config(saved, training={"steps": 4})
    assert fingerprint(saved) == before
    state = load_file(saved / "hypernet.safetensors")
    state["task.0.bias"] += 1
    save_file(state, saved / "hypernet.safetensors")
    assert fingerprint(saved) != before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"hypernet": CONFIG.model_dump(mode="json") | {"variant": "XL"}}, "hypernet.variant"),
        ({"encoder": {"fingerprint": "00"}}, "encoder.name"),
    ],
)
def test_a_wrong_config_is_refused_by_field(saved: Path, change: dict[str, object], named: str) -> None:
    edit_config(saved, **change)
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(saved)


def test_missing_and_truncated_files_are_refused(saved: Path) -> None:
    weights = saved / "hypernet.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"hypernet\.safetensors is missing"):
        load_checkpoint(saved)
    (saved / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize("fault", ["missing", "superfluous", "misshapen", "not finite"])
def test_a_wrong_tensor_is_refused_by_name(saved: Path, fault: str) -> None:
    path = saved / "hypernet.safetensors"
    state = load_file(path)
    if fault == "missing":
        del state["task.0.bias"]
    elif fault == "superfluous":
        state["extra"] = torch.zeros(1)
    elif fault == "misshapen":
        state["task.0.bias"] = torch.zeros(3)
    else:
        state["task.0.bias"][0] = torch.nan
    save_file(state, path)
    with pytest.raises(CheckpointError, match="extra" if fault == "superfluous" else r"task\.0\.bias"):
        load_checkpoint(saved)
