"""Equality with outputs of the published reference, and checkpoints that the importer refuses.

Three small checkpoints are in tests/fixtures/reference. T2L_REFERENCE_FIXTURES names a folder with
more of the same layout.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from hypernet.checkpoint import ModelIdentity, load_checkpoint
from hypernet.cli import app
from hypernet.config import HypernetConfig
from hypernet.encoder import BASE_MODEL, last_token_fingerprint
from hypernet.model import Hypernet
from hypernet.reference import ReferenceImportError, import_reference, load_reference

FIXTURES = Path(__file__).parents[2] / "fixtures" / "reference"
FOLDERS = sorted(Path(os.environ.get("T2L_REFERENCE_FIXTURES", FIXTURES)).iterdir())


def worst_error(model: Hypernet, folder: Path) -> float:
    """Largest absolute difference from the reference's outputs,
    over every number of every adapter.
    """
    expected = load_file(folder / "expected.safetensors")
    with torch.inference_mode():
        ours = model(expected.pop("task_embedding"))
    worst, compared = 0.0, 0
    for key, theirs in expected.items():
        # "0/base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"
        row, _, name = key.partition("/")
        layer, module, kind = (name.split(".")[at] for at in (4, 6, 7))
        mine = (ours.a if kind == "lora_A" else ours.b)[module][int(row), int(layer)]
        assert mine.shape == theirs.shape
        worst = max(worst, float((mine - theirs).abs().max()))
        compared += theirs.numel()
    adapters = next(iter(ours.a.values())).shape[0]
    assert compared == adapters * model.config.lora.num_parameters, "every number is compared"
    return worst


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_outputs_equal_those_of_the_reference(folder: Path) -> None:
    model, _ = load_reference(folder, folder / "base_model")
    assert worst_error(model, folder) < 1e-6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_module_index_follows_adapter_config(folder: Path) -> None:
    model, _ = load_reference(folder, folder / "base_model")
    order = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert [m.name for m in model.config.lora.modules] == order


@pytest.fixture
def copy(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A fixture that a test may change."""
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / request.param))


def change_args(folder: Path, **flags: Any) -> None:
    """Set flags in args.yaml; `...` removes one."""
    args = yaml.safe_load((folder / "args.yaml").read_text()) | flags
    (folder / "args.yaml").write_text(yaml.safe_dump({k: v for k, v in args.items() if v is not ...}))


def read_state(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "hypermod.pt", weights_only=True)
    return state


@pytest.mark.parametrize("copy", ["l-sft-llama"], indirect=True)
def test_a_multi_task_lora_is_an_offset(copy: Path) -> None:
    """With mt_lora_path the initial LoRA is a frozen one instead of the heads' biases.

    Outputs stay equal.
    """
    state = read_state(copy)
    model, _ = load_reference(copy, copy / "base_model")
    spec = model.config.lora
    for m in spec.modules:
        a, b = state.pop(f"heads.{m.name}.bias").split([spec.rank * m.in_features, spec.rank * m.out_features])
        state[f"AB_offset.A.{m.name}"] = a.view(1, spec.rank, -1).repeat(spec.num_layers, 1, 1)
        state[f"AB_offset.B.{m.name}"] = b.view(1, spec.rank, -1).mT.repeat(spec.num_layers, 1, 1)
    torch.save(state, copy / "hypermod.pt")
    change_args(copy, mt_lora_path="some/lora")

    moved, _ = load_reference(copy, copy / "base_model")

    assert (moved.config.output, moved.config.head_bias) == ("offset", False)
    assert worst_error(moved, copy) < 1e-6


@pytest.mark.parametrize("copy", ["l-sft-llama"], indirect=True)
@pytest.mark.parametrize("learned", [False, True])
def test_rank_wise_l_is_imported_with_all_tensors(copy: Path, learned: bool) -> None:
    """No published checkpoint of this variant is available, so only names are checked."""
    state = read_state(copy)
    for name, size in (("q_proj", 64 + 64), ("v_proj", 64 + 32)):
        state[f"heads.{name}.weight"], state[f"heads.{name}.bias"] = torch.zeros(size, 48), torch.ones(size)
    if learned:
        state["pos_emb.0.weight"] = torch.zeros(4, 32)
        state["pos_emb.1.weight"] = state["pos_emb.1.bias"] = torch.zeros(32)
    torch.save(state, copy / "hypermod.pt")
    change_args(copy, autoreg_gen=True, learnable_pos_emb=learned)
    model, _ = load_reference(copy, copy / "base_model")
    assert (model.config.variant, model.config.rank_position) == ("L-rank", "learned" if learned else "rotary")


@pytest.mark.parametrize("copy", ["m-recon-factorized-zscore"], indirect=True)
@pytest.mark.parametrize(
    "flag",
    [
        "model_dir",
        "emb_model",
        "exp_setup",
        "training_task",
        "target_modules",
        "hypernet_latent_size",
        "head_in_size",
        "shared_AB_head",
        "autoreg_gen",
        "learnable_pos_emb",
        "mt_lora_path",
        "pred_z_score",
        "factorized",
        "delta_w_scaling",
    ],
)
def test_missing_flags_are_named(copy: Path, flag: str) -> None:
    change_args(copy, **{flag: ...})
    with pytest.raises(ReferenceImportError, match=rf"args\.yaml: {flag}"):
        load_reference(copy, copy / "base_model")


@pytest.mark.parametrize(
    ("copy", "flags", "named"),
    [
        # an invalid value, or a network that is not supported
        ("l-sft-llama", {"training_task": "dpo"}, "training_task"),
        ("l-sft-llama", {"exp_setup": "vera"}, "exp_setup"),
        ("l-sft-llama", {"emb_model": None}, "emb_model"),
        ("l-sft-llama", {"use_one_hot_task_emb": True}, "use_one_hot_task_emb"),
        ("l-sft-llama", {"use_per_task_emb": False}, "use_per_task_emb"),
        ("l-sft-llama", {"learnable_AB_offset": True}, "learnable_AB_offset"),
        ("l-sft-llama", {"shared_AB_head": "no"}, "shared_AB_head"),
        ("l-sft-llama", {"hypernet_latent_size": 30}, "hypernet_latent_size"),
        ("l-sft-llama", {"head_in_size": 0}, "head_in_size"),
        ("m-recon-factorized-zscore", {"delta_w_scaling": 0}, "delta_w_scaling"),
        # against another flag
        ("l-sft-llama", {"target_modules": ["q_proj"]}, "target_modules"),
        ("l-sft-llama", {"learnable_pos_emb": True}, "learnable_pos_emb"),
        ("l-sft-llama", {"training_task": "recon"}, "pred_z_score"),
        ("m-recon-factorized-zscore", {"factorized": False}, "factorized"),
        ("m-recon-factorized-zscore", {"mt_lora_path": "some/lora"}, "mt_lora_path"),
        # against the tensors
        ("l-sft-llama", {"shared_AB_head": True}, "shared_AB_head"),
        ("l-sft-llama", {"autoreg_gen": True}, "autoreg_gen"),
        ("l-sft-llama", {"mt_lora_path": "some/lora"}, "mt_lora_path"),
        ("l-sft-llama", {"hypernet_latent_size": 64}, "hypernet_latent_size"),
        ("l-sft-llama", {"head_in_size": 64}, "head_in_size"),
        ("s-sft-llama-rope", {"learnable_pos_emb": True}, "learnable_pos_emb"),
        ("s-sft-llama-rope", {"shared_AB_head": False}, "shared_AB_head"),
        ("s-sft-llama-rope", {"autoreg_gen": False}, "autoreg_gen"),
        ("m-recon-factorized-zscore", {"pred_z_score": False}, "pred_z_score"),
        ("m-recon-factorized-zscore", {"training_task": "sft"}, "training_task"),
    ],
    indirect=["copy"],
)
def test_wrong_and_contradictory_flags_are_named(copy: Path, flags: dict[str, Any], named: str) -> None:
    change_args(copy, **flags)
    with pytest.raises(ReferenceImportError, match=named):
        load_reference(copy, copy / "base_model")


@pytest.mark.parametrize("copy", ["s-sft-llama-rope"], indirect=True)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task_encoder.mlp.0.weight": None}, r"task_encoder\.mlp\.0\.weight is missing"),
        ({"out_emb.v_proj.B": None}, r"out_emb\.v_proj\.B is missing"),
        ({"mlp3.4.bias": torch.zeros(47)}, r"mlp3\.4\.bias has shape \(47,\), needs \(48,\)"),
        ({"mixer.1.bias": torch.full((128,), torch.nan)}, r"mixer\.1\.bias has values that are not finite"),
        ({"pos_emb.0.weight": torch.zeros(4, 32)}, r"pos_emb\.0\.weight is unexpected, see autoreg_gen"),
        ({"surprise": torch.zeros(1)}, "surprise is unexpected"),
        ({"AB_offset.A.q_proj": torch.ones(3, 4, 64)}, "mt_lora_path is null, but AB_offset is not zero"),
        ({"mixer.1.bias": "text"}, "is not a state dict"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy: Path, change: dict[str, Any], named: str) -> None:
    state = {name: t for name, t in (read_state(copy) | change).items() if t is not None}
    torch.save(state, copy / "hypermod.pt")
    with pytest.raises(ReferenceImportError, match=named):
        load_reference(copy, copy / "base_model")


@pytest.mark.parametrize("copy", ["s-sft-llama-rope"], indirect=True)
def test_another_base_model_is_refused(copy: Path) -> None:
    base = json.loads((copy / "base_model" / "config.json").read_text())
    with pytest.raises(ReferenceImportError, match="num_hidden_layers"):
        load_reference(copy, base | {"num_hidden_layers": 4})
    with pytest.raises(ReferenceImportError, match="the base model"):
        load_reference(copy, base | {"hidden_size": 128})


class Payload:
    """Pickles to a function call, as a malicious checkpoint does."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("copy", ["s-sft-llama-rope"], indirect=True)
def test_pickled_code_does_not_run(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    torch.save({"mixer.1.bias": Payload()}, copy / "hypermod.pt")
    with pytest.raises(ReferenceImportError, match=r"hypermod\.pt cannot be read as plain tensors"):
        load_reference(copy, copy / "base_model")
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("copy", ["s-sft-llama-rope"], indirect=True)
def test_missing_and_truncated_files_are_named(copy: Path) -> None:
    weights = copy / "hypermod.pt"
    whole = weights.read_bytes()
    for broken in (b"", whole[:1], whole[:100], whole[:-1], whole[: len(whole) // 2], b"nonsense" * 20):
        weights.write_bytes(broken)
        with pytest.raises(ReferenceImportError, match=r"hypermod\.pt"):
            load_reference(copy, copy / "base_model")
    weights.unlink()
    with pytest.raises(ReferenceImportError, match=r"hypermod\.pt"):
        load_reference(copy, copy / "base_model")
    for broken in ("[", "- a list", ""):
        (copy / "args.yaml").write_text(broken)
        with pytest.raises(ReferenceImportError, match=r"args\.yaml"):
            load_reference(copy, copy / "base_model")
    (copy / "args.yaml").unlink()
    with pytest.raises(ReferenceImportError, match=r"args\.yaml"):
        load_reference(copy, copy / "base_model")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return with_weights(tmp_path / "encoder", {"model_type": "bert"})


def with_weights(folder: Path, config: dict[str, Any]) -> Path:
    """A model folder that has a fingerprint."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("copy", [folder.name for folder in sorted(FIXTURES.iterdir())], indirect=True)
def test_imported_checkpoint_gives_the_references_outputs(copy: Path, encoder: Path, tmp_path: Path) -> None:
    base = with_weights(tmp_path / "base", json.loads((copy / "base_model" / "config.json").read_text()))
    config = import_reference(copy, tmp_path / "out", base, encoder)
    model, loaded = load_checkpoint(tmp_path / "out")
    assert loaded == config
    assert isinstance(loaded.hypernet, HypernetConfig)
    assert loaded.encoder.name == "fixture/encoder"
    assert worst_error(model, copy) < 1e-6


@pytest.mark.parametrize("copy", [folder.name for folder in sorted(FIXTURES.iterdir())], indirect=True)
def test_import_needs_only_config_json_of_the_base_model(copy: Path, tmp_path: Path) -> None:
    """The fixture's base_model holds only config.json, and there is no encoder."""
    arguments = ["import-reference", str(copy), str(tmp_path / "out"), "--base-model", str(copy / "base_model")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.count("weights not recorded") == 2
    model, config = load_checkpoint(tmp_path / "out")
    assert config.base_model == ModelIdentity(name="fixture/llama")
    assert config.encoder == ModelIdentity(name="fixture/encoder")
    assert worst_error(model, copy) < 1e-6


@pytest.mark.parametrize("copy", ["l-sft-llama"], indirect=True)
def test_import_with_the_base_model_as_encoder_needs_no_weights(copy: Path, tmp_path: Path) -> None:
    change_args(copy, emb_model="")
    config = import_reference(copy, tmp_path / "out", copy / "base_model")
    assert config.encoder == ModelIdentity(name=BASE_MODEL)


@pytest.mark.parametrize("copy", ["l-sft-llama"], indirect=True)
@pytest.mark.parametrize("encoder_type", [..., "linear", "vq", None])
def test_flags_that_the_reference_ignores_are_ignored(copy: Path, encoder_type: Any) -> None:
    change_args(copy, encoder_type=encoder_type)
    model, _ = load_reference(copy, copy / "base_model")
    assert worst_error(model, copy) < 1e-6


@pytest.mark.parametrize("copy", ["l-sft-llama"], indirect=True)
def test_run_without_an_encoder_uses_the_base_model(copy: Path, tmp_path: Path) -> None:
    change_args(copy, emb_model="")
    base = with_weights(tmp_path / "base", json.loads((copy / "base_model" / "config.json").read_text()))
    done = CliRunner().invoke(
        app, ["import-reference", str(copy), str(tmp_path / "out"), "--base-model", str(base)]
    )
    assert done.exit_code == 0, done.output
    identity = load_checkpoint(tmp_path / "out")[1].encoder
    assert (identity.name, identity.fingerprint) == (BASE_MODEL, last_token_fingerprint(base))


@pytest.mark.parametrize("copy", ["l-sft-llama"], indirect=True)
def test_import_command_writes_a_checkpoint(copy: Path, encoder: Path, tmp_path: Path) -> None:
    t2l = typer.Typer()
    t2l.add_typer(app)
    t2l.command("other")(lambda: None)
    base = with_weights(tmp_path / "base", json.loads((copy / "base_model" / "config.json").read_text()))
    arguments = ["import-reference", str(copy), str(tmp_path / "out")]
    options = ["--base-model", str(base), "--encoder", str(encoder)]

    done = CliRunner().invoke(t2l, arguments + options)
    assert done.exit_code == 0, done.output
    assert "variant L, rank 4 on q_proj, v_proj of 3 layers" in done.output
    assert load_checkpoint(tmp_path / "out")[1].base_model.name == "fixture/llama"

    change_args(copy, head_in_size=64)
    failed = CliRunner().invoke(t2l, arguments + options)
    assert failed.exit_code == 2
    assert "head_in_size" in failed.stderr
    assert "Traceback" not in failed.output
