"""Shapes from config.json equal those of the model that transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from hypernet.base_model import TARGET_MODULES, BaseModelError, fingerprint, lora_spec

TINY = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 32,
}


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "num_key_value_heads": 2},
        {"model_type": "llama", "num_key_value_heads": 2, "head_dim": 20},
        {"model_type": "llama", "num_key_value_heads": None, "head_dim": None},
        {"model_type": "mistral"},
        {"model_type": "mistral", "num_key_value_heads": 2, "head_dim": 16},
        {"model_type": "gemma2"},
        {"model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 8},
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "num_key_value_heads": 2},
        {"model_type": "qwen2", "num_key_value_heads": None},
        {"model_type": "qwen3"},
        {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 24},
    ],
    ids=lambda fields: "-".join(str(v) for v in fields.values()),
)
def test_shapes_match_the_transformers_model(fields: dict[str, Any]) -> None:
    config = TINY | fields
    spec = lora_spec(config, rank=4, alpha=8, target_modules=TARGET_MODULES)

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    layers = model.model.layers
    assert spec.num_layers == len(layers)
    for module in spec.modules:
        linear = layers[0].get_submodule(module.path)
        assert (module.in_features, module.out_features) == (linear.in_features, linear.out_features), module


def test_module_order_is_the_order_given() -> None:
    spec = lora_spec(TINY | {"model_type": "llama"}, rank=4, alpha=8, target_modules=["v_proj", "q_proj"])
    assert [m.name for m in spec.modules] == ["v_proj", "q_proj"]


def test_attention_modules_do_not_need_the_mlp_size() -> None:
    fields = {k: v for k, v in TINY.items() if k != "intermediate_size"}
    assert lora_spec(fields | {"model_type": "llama"}, rank=1, alpha=1).num_layers == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'"),
        ({"model_type": None}, "model_type"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers"),
        ({"hidden_size": 50}, "hidden_size 50"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": True}, "head_dim"),
        ({"model_type": "gemma2", "head_dim": None}, "head_dim"),
    ],
)
def test_errors_name_the_field(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BaseModelError, match=named):
        lora_spec({"model_type": "llama"} | TINY | change, rank=4, alpha=8)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = {k: v for k, v in TINY.items() if k != field}
    with pytest.raises(BaseModelError, match=f"{field} is missing"):
        lora_spec({"model_type": "llama"} | fields, rank=4, alpha=8)


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(BaseModelError, match="'lm_head'"):
        lora_spec({"model_type": "llama"} | TINY, rank=4, alpha=8, target_modules=["q_proj", "lm_head"])


def test_unreadable_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"config\.json"):
        lora_spec(tmp_path, rank=4, alpha=8)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BaseModelError, match="not a JSON object"):
        lora_spec(tmp_path, rank=4, alpha=8)


def _weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"one": torch.randn(64, 64, generator=generator), "two": torch.randn(3, generator=generator)}


def _save(folder: Path, weights: dict[str, torch.Tensor], *, shards: bool = False, **config: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    if not shards:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {name: f"model-{name}.safetensors" for name in weights}
    for name, file in weight_map.items():
        save_file({name: weights[name]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_fingerprint_is_unchanged_by_resharding_and_metadata(tmp_path: Path) -> None:
    whole = _save(tmp_path / "whole", _weights())
    sharded = _save(tmp_path / "sharded", _weights(), shards=True, transformers_version="0")
    save_file(_weights(), sharded / "consolidated.safetensors")  # another layout of the same, as Mistral ships
    assert fingerprint(whole) == fingerprint(sharded)
    assert len(fingerprint(whole)) == 16


def test_fingerprint_differs_for_other_weights(tmp_path: Path) -> None:
    known = {fingerprint(_save(tmp_path / "original", _weights()))}
    for i, change in enumerate(
        (
            {"one": _weights()["one"] + 1e-6},
            {"two": torch.zeros(3)},
            {"one": _weights()["one"].bfloat16()},
            {"one": _weights()["one"].view(32, 128)},
            {"three": torch.zeros(1)},
        )
    ):
        known.add(fingerprint(_save(tmp_path / str(i), _weights() | change)))
    known.add(fingerprint(_save(tmp_path / "family", _weights(), model_type="mistral")))
    assert len(known) == 7


def test_fingerprint_of_unreadable_weights_is_refused(tmp_path: Path) -> None:
    folder = _save(tmp_path / "model", _weights())
    file = folder / "model.safetensors"
    content = file.read_bytes()
    for broken in (content[:-1], content[:20], content[:4], b"", b"\xff" * 100):
        file.write_bytes(broken)
        with pytest.raises(BaseModelError, match=r"model\.safetensors"):
            fingerprint(folder)
    file.unlink()
    with pytest.raises(BaseModelError, match="needs weights in the safetensors format"):
        fingerprint(folder)
