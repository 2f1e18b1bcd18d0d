"""Adapter folders that PEFT and this project exchange, and folders that the reader refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from hypernet import peft_io
from hypernet.base_model import BaseModelError, lora_spec
from hypernet.lora import InvalidLoraError, LoraWeights
from hypernet.lora_injector import LoraInjector
from hypernet.peft_io import AdapterFileError, dump_adapter, load_adapter, read_provenance, save_adapter
from tests.support.tiny_models import tiny_llama

BASE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "initializer_range": 0.2,
}
IDS = torch.tensor([[1, 5, 9, 2, 7], [3, 3, 8, 1, 4]])
Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def frozen_llama() -> LlamaForCausalLM:
    return tiny_llama(**BASE).eval().requires_grad_(False)


def random_adapter(*, use_rslora: bool = False, alpha: float = 6) -> LoraWeights:
    spec = lora_spec(
        BASE, rank=3, alpha=alpha, use_rslora=use_rslora, target_modules=("v_proj", "q_proj", "down_proj")
    )
    generator = torch.Generator().manual_seed(1)
    return LoraWeights.unflatten(spec, 0.2 * torch.randn(spec.num_parameters, generator=generator))


def functional_logits(weights: LoraWeights) -> torch.Tensor:
    model = frozen_llama()
    a, b = ({name: t[None] for name, t in side.items()} for side in (weights.a, weights.b))
    with LoraInjector(model, weights.spec).use(a, b):
        logits: torch.Tensor = model(IDS).logits
    return logits


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 2.0), (True, 6 / 3**0.5)])
def test_peft_loads_our_adapters_with_equal_logits_and_scale(
    tmp_path: Path, use_rslora: bool, scale: float
) -> None:
    weights = random_adapter(use_rslora=use_rslora)
    save_adapter(tmp_path, weights, "tiny/llama")

    loaded = peft.PeftModel.from_pretrained(frozen_llama(), tmp_path).eval()

    q_proj = loaded.base_model.model.model.layers[0].self_attn.q_proj
    assert q_proj.scaling["default"] == pytest.approx(scale)
    torch.testing.assert_close(loaded(IDS).logits, functional_logits(weights), atol=1e-5, rtol=1e-5)
    assert (loaded(IDS).logits - frozen_llama()(IDS).logits).abs().max() > 0.1


@pytest.mark.parametrize("use_rslora", [False, True])
def test_peft_adapters_are_loaded(tmp_path: Path, use_rslora: bool) -> None:
    config = peft.LoraConfig(
        r=4, lora_alpha=8, use_rslora=use_rslora, target_modules=["q_proj", "o_proj"], init_lora_weights=False
    )
    theirs = peft.get_peft_model(frozen_llama(), config).eval()
    theirs.save_pretrained(tmp_path)

    ours = load_adapter(tmp_path, BASE)

    torch.testing.assert_close(theirs(IDS).logits, functional_logits(ours), atol=1e-5, rtol=1e-5)
    assert read_provenance(tmp_path) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [6, 2.5])
def test_saving_and_loading_keeps_weights_spec_and_provenance(
    tmp_path: Path, dtype: torch.dtype, alpha: float
) -> None:
    weights = random_adapter(alpha=alpha).to(dtype)
    origin = peft_io.provenance("Translate to Übersetzung", "0123456789abcdef", "f00d")
    save_adapter(tmp_path, weights, "tiny/llama", origin)

    loaded = load_adapter(tmp_path, BASE)

    assert loaded.spec == weights.spec, "module order and scale included"
    assert torch.equal(loaded.flatten(), weights.flatten())
    assert loaded.flatten().dtype == dtype
    assert read_provenance(tmp_path) == origin
    assert not any("Translate" in value for value in origin.values())


def exported(folder: Path, base_model: str) -> tuple[str, str]:
    """The base model that an export names, and its README."""
    save_adapter(folder, random_adapter(), base_model, peft_io.provenance("d", "c", "f00d"))
    config = json.loads((folder / "adapter_config.json").read_text())
    return config["base_model_name_or_path"], (folder / "README.md").read_text()


def test_an_export_names_the_bundled_model_by_its_hub_id(tmp_path: Path) -> None:
    name, card = exported(tmp_path, "SmolLM2-135M-Instruct")
    assert name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert f"base_model: {name}\n" in card and "weights f00d" in card and "dequantised from 4 bits" in card


def test_an_export_for_a_hub_model_names_its_id(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--google--gemma-2-2b-it" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for given in ("google/gemma-2-2b-it", str(snapshot)):
        name, card = exported(tmp_path / "out", given)
        assert name == "google/gemma-2-2b-it" and "base_model: google/gemma-2-2b-it\n" in card
        assert "local folder" not in card


def test_an_export_for_a_local_model_says_how_to_load_it_and_shows_no_path(tmp_path: Path) -> None:
    (tmp_path / "my-llama").mkdir()
    for given in (str(tmp_path / "my-llama"), "my-llama"):
        name, card = exported(tmp_path / "out", given)
        assert name == "my-llama"
        assert "base_model:" not in card and "PeftModel.from_pretrained(base_model" in card
        assert str(tmp_path) not in card


def test_auto_peft_model_finds_the_base_model_of_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands for the hub. The requested id is the one that the export names."""
    frozen_llama().save_pretrained(tmp_path / "HuggingFaceTB" / "SmolLM2-135M-Instruct")
    save_adapter(tmp_path / "export", random_adapter(), "SmolLM2-135M-Instruct")
    monkeypatch.chdir(tmp_path)
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained("export").eval()
    torch.testing.assert_close(loaded(IDS).logits, functional_logits(random_adapter()), atol=1e-5, rtol=1e-5)


def test_vllm_loads_our_adapters_with_the_same_scale(tmp_path: Path) -> None:
    peft_helper = pytest.importorskip("vllm.lora.peft_helper")
    lora_model = pytest.importorskip("vllm.lora.lora_model")
    weights = random_adapter(use_rslora=True)
    save_adapter(tmp_path, weights, "tiny/llama", {"origin": "test"})

    helper = peft_helper.PEFTHelper.from_local_dir(str(tmp_path), max_position_embeddings=64)
    names = {m.name for m in weights.spec.modules}
    loaded = lora_model.LoRAModel.from_local_checkpoint(
        str(tmp_path), names, helper, lora_model_id=1, device="cpu", dtype=torch.float32
    ).loras

    assert len(loaded) == len(names) * weights.spec.num_layers
    for m in weights.spec.modules:
        for layer in range(weights.spec.num_layers):
            theirs = loaded[f"model.layers.{layer}.{m.path}"]
            assert theirs.scaling == pytest.approx(weights.spec.scaling)
            assert torch.equal(theirs.lora_a, weights.a[m.name][layer])
            assert torch.equal(theirs.lora_b, weights.b[m.name][layer])


def test_equal_adapters_give_equal_bytes() -> None:
    origin = {str(i): "ü" * i for i in range(8)}
    files = [dump_adapter(random_adapter(), "tiny/llama", origin) for _ in range(4)]
    assert all(f == files[0] for f in files)


def test_transposed_views_are_saved_in_order(tmp_path: Path) -> None:
    """The hypernetwork's B is a view whose last two dimensions are swapped."""
    weights = random_adapter()
    swapped = {name: t.transpose(-1, -2).contiguous().transpose(-1, -2) for name, t in weights.b.items()}
    save_adapter(tmp_path, LoraWeights(weights.spec, weights.a, swapped), "tiny/llama")
    assert torch.equal(load_adapter(tmp_path, BASE).flatten(), weights.flatten())


def test_invalid_weights_are_not_saved() -> None:
    weights = random_adapter()
    weights.b["q_proj"][1, 0, 0] = float("nan")
    with pytest.raises(InvalidLoraError, match=r"q_proj\.B"):
        dump_adapter(weights, "tiny/llama")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("r", 0),
        ("r", 513),
        ("r", "3"),
        ("lora_alpha", None),
        ("lora_alpha", -1),
        ("use_rslora", "yes"),
        ("target_modules", "all-linear"),
        ("target_modules", []),
        ("init_lora_weights", "olora"),
        ("bias", "all"),
        ("init_lora_weights", "pissa"),
        ("use_dora", True),
        ("lora_bias", True),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("modules_to_save", ["lm_head"]),
        ("layers_to_transform", [0]),
        ("fan_in_fan_out", True),
        ("invented_later", {"changes": "everything"}),
    ],
)
def test_unsupported_fields_are_named(tmp_path: Path, field: str, value: Any) -> None:
    save_adapter(tmp_path, random_adapter(), "tiny/llama")
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text()) | {field: value}
    path.write_text(json.dumps(config))
    with pytest.raises(AdapterFileError, match=rf"adapter_config\.json: {field}\b"):
        load_adapter(tmp_path, BASE)


@pytest.mark.parametrize("field", ["r", "lora_alpha", "target_modules", "peft_type"])
def test_missing_fields_are_named(tmp_path: Path, field: str) -> None:
    save_adapter(tmp_path, random_adapter(), "tiny/llama")
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    del config[field]
    path.write_text(json.dumps(config))
    with pytest.raises(AdapterFileError, match=field):
        load_adapter(tmp_path, BASE)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({Q0: torch.zeros(3, 31)}, r"layers\.0\.self_attn\.q_proj\.lora_A\.weight is \(\(3, 31\)"),
        ({Q0.replace("layers.0", "layers.1"): torch.zeros(3, 32).half()}, r"layers\.1.*float16"),
        ({Q0.replace("q_proj", "k_proj"): torch.zeros(3, 32)}, "k_proj.* belongs to no target module"),
        ({Q0: None}, r"q_proj\.lora_A\.weight is missing"),
        ({Q0: torch.full((3, 32), float("inf"))}, r"q_proj\.A"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, torch.Tensor | None], named: str
) -> None:
    save_adapter(tmp_path, random_adapter(), "tiny/llama")
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path) | change
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    with pytest.raises(InvalidLoraError, match=named):
        load_adapter(tmp_path, BASE)


def test_adapter_for_another_base_model_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path, random_adapter(), "tiny/llama")
    with pytest.raises(InvalidLoraError, match=r"layers\.2"):
        load_adapter(tmp_path, BASE | {"num_hidden_layers": 3})
    with pytest.raises(InvalidLoraError, match="v_proj"):
        load_adapter(tmp_path, BASE | {"num_key_value_heads": 4})
    with pytest.raises(BaseModelError, match="model_type"):
        load_adapter(tmp_path, BASE | {"model_type": "bert"})


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    save_adapter(tmp_path, random_adapter(), "tiny/llama")
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    for read in (lambda: load_adapter(tmp_path, BASE), lambda: read_provenance(tmp_path)):
        with pytest.raises(AdapterFileError, match=r"adapter_model\.bin is a pickle"):
            read()


def test_missing_and_truncated_files_are_named(tmp_path: Path) -> None:
    save_adapter(tmp_path, random_adapter(), "tiny/llama")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for read in (lambda: load_adapter(tmp_path, BASE), lambda: read_provenance(tmp_path)):
        with pytest.raises(AdapterFileError, match=r"adapter_model\.safetensors"):
            read()
    weights.unlink()
    with pytest.raises(AdapterFileError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(tmp_path, BASE)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(AdapterFileError, match=r"adapter_config\.json"):
        load_adapter(tmp_path, BASE)
