"""Reconstruction of a small library: its start, its losses, and convergence of every variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from hypernet.base_model import fingerprint, lora_spec
from hypernet.checkpoint import ModelIdentity, load_config
from hypernet.config import HypernetConfig
from hypernet.data.tasks import TaskFileError
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.library import Entry, Library, LibraryError
from hypernet.lora import LoraBatch, LoraWeights
from hypernet.model import Hypernet
from hypernet.packing import pack
from hypernet.training.config import ReconstructionConfig
from hypernet.training.distance import delta_w_distance, relative_error
from hypernet.training.loop import RunState, read_log
from hypernet.training.losses import sft_loss
from hypernet.training.reconstruction import ReconstructionRun, train_reconstruction

pytestmark = pytest.mark.slow

TASKS = ["antonym", "plural", "capital", "rhyme"]
VARIANTS = ["L", "M", "S"]
TARGETS = ["factors", "delta_w"]


@pytest.fixture(scope="module")
def library(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Four LoRAs that share most of A, as oracles with a shared start do."""
    spec = lora_spec(tiny_base, rank=2, alpha=4)
    generator = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.randn(spec.num_parameters, generator=generator)

    common = 0.1 * random()
    loras = {name: LoraWeights.unflatten(spec, common + 0.05 * random()) for name in TASKS}
    identity = ModelIdentity(name="tiny-llama", fingerprint=fingerprint(tiny_base))
    fresh = Library.open_or_create(tmp_path_factory.mktemp("library"), identity, spec, "test")
    fresh.add({name: (lora, Entry(steps=1, loss=1.0, held_out_loss=1.0)) for name, lora in loras.items()})
    return fresh


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    rest = {"instances": [{"input": "a", "output": ["b"]}]}
    lines = [json.dumps({"task": name, "descriptions": [f"Give the {name}."]} | rest) for name in TASKS]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return Encoder.load(str(tiny_encoder))


def config(**changes: object) -> ReconstructionConfig:
    small = {"latent_size": 32, "head_input_size": 64, "dropout": 0.0, "learning_rate": 1e-2}
    return ReconstructionConfig.model_validate(small | {"steps": 1, "descriptions": 1} | changes)


def alone(lora: LoraWeights) -> LoraBatch:
    """A batch of one."""
    return LoraBatch({m: t[None] for m, t in lora.a.items()}, {m: t[None] for m, t in lora.b.items()})


def run(library: Library, encoder: Encoder, **changes: object) -> ReconstructionRun:
    descriptions = {name: [f"Give the {name}."] for name in library}
    return ReconstructionRun(config(**changes), library, descriptions, encoder)


def factors(n: int, layers: int, rank: int, size_in: int, size_out: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, layers, rank, size_in), torch.randn(n, layers, size_out, rank)


def test_delta_w_distance_and_its_gradient_are_exact() -> None:
    torch.manual_seed(0)
    a, b = factors(3, 2, 2, 5, 4)
    a_star, b_star = factors(3, 2, 2, 5, 4)
    plain = (b @ a - b_star @ a_star).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(delta_w_distance(a, b, a_star, b_star), plain)
    exact = [t.double() for t in (a, b, a_star, b_star)]
    assert gradcheck(delta_w_distance, [t.requires_grad_(i < 2) for i, t in enumerate(exact)])
    with torch.inference_mode():
        assert not delta_w_distance(a, b, a, b).any()


def test_relative_error_equals_that_of_the_products() -> None:
    torch.manual_seed(0)
    (a, b), (a_star, b_star) = factors(2, 3, 2, 5, 4), factors(2, 3, 2, 5, 4)
    difference, whole = b @ a - b_star @ a_star, b_star @ a_star
    expected = difference.flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
    error = relative_error(LoraBatch({"q": a}, {"q": b}), LoraBatch({"q": a_star}, {"q": b_star}))
    torch.testing.assert_close(error.float(), expected)
    zero = LoraBatch({"q": a_star}, {"q": 0 * b_star})
    assert relative_error(LoraBatch({"q": a}, {"q": 0 * b}), zero).tolist() == [0, 0]
    assert relative_error(zero, LoraBatch({"q": a_star}, {"q": b_star})).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_z_scores_start_at_the_mean_of_the_library(library: Library, encoder: Encoder, variant: str) -> None:
    made = run(library, encoder, variant=variant)
    with torch.no_grad():
        start = made.model(encoder.encode(["anything"])).split(library.spec)[0].flatten()
    mean, deviation = (lora.flatten() for lora in library.statistics())
    assert ((start - mean).abs() <= 0.1 * deviation + 1e-6).all()
    every = torch.stack([library[name].flatten() for name in library])
    z = ((every - mean) / (deviation + 1e-10)).abs()
    loss = made.losses(made.model(made.embed(["anything"] * 4)), [0, 1, 2, 3])
    assert loss.mean().item() == pytest.approx(z.mean().item(), rel=0.1)


def train(library: Library, tasks: Path, out: Path, encoder: Path, **changes: object) -> RunState:
    return train_reconstruction(library.folder, [tasks], out, config(**changes), encoder=str(encoder))


@pytest.mark.parametrize(
    ("target", "variant", "steps", "error"),
    [
        ("factors", "L", 200, 0.02),
        ("factors", "M", 120, 0.3),
        ("factors", "S", 120, 0.5),
        ("delta_w", "L", 600, 0.05),
        ("delta_w", "M", 120, 0.7),
        ("delta_w", "S", 120, 0.9),  # one head for every rank of A and of B, and a library of pure noise
    ],
)
def test_every_variant_learns_to_reproduce_the_library(
    library: Library,
    tasks: Path,
    tiny_encoder: Path,
    tmp_path: Path,
    target: str,
    variant: str,
    steps: int,
    error: float,
) -> None:
    rate = {"factors": 1e-2, "delta_w": 2e-2}[target]
    state = train(
        library, tasks, tmp_path, tiny_encoder, target=target, variant=variant, steps=steps, learning_rate=rate
    )
    last = [line for line in read_log(tmp_path) if line["kind"] == "validation"][-1]
    assert last["relative_error"] < error
    assert last["loss"] == pytest.approx(state.best)
    assert {f"error/{name}" for name in TASKS} < set(last)
    saved = load_config(tmp_path / "best")
    assert (saved.training["method"], saved.training["target"]) == ("reconstruction", target)
    assert saved.base_model == library.base_model
    generated = Generator.load(tmp_path / "best", str(tiny_encoder)).generate([f"Give the {n}." for n in TASKS])
    for name, lora in zip(TASKS, generated, strict=True):  # what is served is what was measured, but for bf16
        served = relative_error(alone(lora), alone(library[name])).item()
        assert served == pytest.approx(last[f"error/{name}"], abs=0.03)


def test_pass_over_the_library_uses_every_lora_once(library: Library, encoder: Encoder) -> None:
    made = run(library, encoder, tasks=3)
    passes = [made._batch(2 * n) + made._batch(2 * n + 1) for n in range(5)]
    assert all(sorted(p) == [0, 1, 2, 3] for p in passes)
    assert len({tuple(p) for p in passes}) > 1


def test_a_killed_run_resumes_to_the_same_weights(
    library: Library, tasks: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernet.training.loop.SAVE_SECONDS", -1.0)  # save after every step
    step = ReconstructionRun.step

    def killed(self: ReconstructionRun, number: int) -> object:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number)

    def start(name: str, resume: bool = False) -> None:
        settings = config(steps=8, tasks=2, dropout=0.1, descriptions=6)
        train_reconstruction(
            library.folder, [tasks], tmp_path / name, settings, encoder=str(tiny_encoder), resume=resume
        )

    start("whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReconstructionRun, "step", killed)
        start("broken")
    with pytest.raises(FileExistsError, match="--resume"):
        start("broken")
    start("broken", resume=True)
    whole, broken = (
        torch.load(tmp_path / name / "state.pt", weights_only=True)["model"] for name in ("whole", "broken")
    )
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_selected_loras_are_trained_on_and_missing_descriptions_are_named(
    library: Library, tasks: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    def some(**choice: Any) -> dict[str, Any]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        train_reconstruction(library.folder, [tasks], out, config(steps=1), encoder=str(tiny_encoder), **choice)
        return load_config(out / "best").training

    assert some(only="rhyme,plural")["tasks"] == 2
    assert some(count=3)["tasks"] == 3
    with pytest.raises(TaskFileError, match="called verb"):
        some(only="verb")
    few = tmp_path / "few.jsonl"
    few.write_text(tasks.read_text().splitlines()[0])
    with pytest.raises(TaskFileError, match="describes plural, capital, rhyme"):
        train(library, few, tmp_path / "x", tiny_encoder)
    with pytest.raises(LibraryError, match="is missing"):
        train_reconstruction(tmp_path, [tasks], tmp_path / "x", config(), encoder=str(tiny_encoder))


@pytest.mark.parametrize(("variant", "tolerance"), [("L", 0.0), ("M", 3e-3), ("S", 3e-3)])
@pytest.mark.parametrize("output", ["direct", "delta_w"])
def test_training_starts_at_the_loss_of_the_base_model(
    tiny_base: Path, variant: str, tolerance: float, output: str
) -> None:
    base = FrozenBase(tiny_base, lora_spec(tiny_base, rank=8, alpha=16), "cpu", torch.float32)
    shape = {"lora": base.spec, "variant": variant, "embedding_size": 16, "output": output}
    torch.manual_seed(0)
    model = Hypernet(HypernetConfig.model_validate(shape)).eval()
    packed = pack([[base.chat.example(a, b) for a, b in (("hot", "cold"), ("up", "down"))]])
    with torch.no_grad():
        adapters = model(torch.randn(1, 16))
        loss = [
            sft_loss(base.logits(packed, a), packed, adapters, label_smoothing=0.1, adapter_penalty=0.0)[0]
            for a in (adapters, None)
        ]
    assert loss[0].item() == pytest.approx(loss[1].item(), rel=tolerance, abs=0)
