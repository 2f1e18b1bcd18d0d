"""One SFT step on a tiny Llama: what is drawn, what the losses are, where a run may start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hypernet.base_model import lora_spec
from hypernet.checkpoint import CheckpointError, load_checkpoint, load_config
from hypernet.data.tasks import Instance, Task, TaskFileError
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.training.config import SftConfig
from hypernet.training.loop import RunState
from hypernet.training.losses import contrastive_loss, token_losses
from hypernet.training.sft import SftRun, sft_data, train_sft
from hypernet.training.static_lora import train_multitask
from hypernet.training.training_tasks import draw_weights, prepare

WORDS = ("cup", "dog", "sun", "tree", "fish", "bell", "coin", "lamp", "moon", "seed")


def task(name: str, answer: str, derived: bool = False) -> Task:
    instances = [Instance(input=word, output=[answer]) for word in WORDS]
    return Task(task=name, descriptions=[f"Say {answer}."], instances=instances, derived=derived)


@pytest.fixture
def frozen(tiny_base: Path) -> FrozenBase:
    return FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)


def run(frozen: FrozenBase, tiny_encoder: Path, **changes: object) -> SftRun:
    config = SftConfig(
        **{"steps": 1, "rank": 2, "alpha": 4, "rows": 4, "latent_size": 16, "head_input_size": 16} | changes
    )
    tasks = [task("one", "red"), task("two", "blue")]
    return SftRun(config, sft_data(tasks, config, frozen), frozen, Encoder.load(str(tiny_encoder)))


def test_held_out_instances_never_train(frozen: FrozenBase) -> None:
    ready = prepare(task("one", "red"), frozen.chat, 1000)
    assert ready is not None
    trained = {tuple(example.prompt) for example in ready.examples}
    assert trained == {tuple(frozen.chat.prompt(w)) for w in WORDS if w not in ("fish", "seed")}


def test_derived_tasks_get_their_share_of_the_draws(frozen: FrozenBase) -> None:
    tasks = [task("a", "x"), *(task(f"d{i}", "x", derived=True) for i in range(9))]
    ready = [prepared for t in tasks if (prepared := prepare(t, frozen.chat, 1000))]
    weights = draw_weights(ready, 0.5, 0.25)
    assert weights[0] == pytest.approx(0.75) and sum(weights) == pytest.approx(1.0)
    assert draw_weights(ready[1:], 0.0, 0.25) == [1.0] * 9  # nothing else to share with


def test_both_losses_equal_torchs_cross_entropy() -> None:
    scores, targets = 3 * torch.randn(7, 50), torch.randint(50, (7,))
    smooth, plain = token_losses(scores, targets, 0.1)
    assert torch.allclose(plain, F.cross_entropy(scores, targets, reduction="none"), atol=1e-5)
    expected = F.cross_entropy(scores, targets, label_smoothing=0.1, reduction="none")
    assert torch.allclose(smooth, expected, atol=1e-5)


def test_configuration_selects_the_paraphrases_of_a_run(frozen: FrozenBase, tiny_encoder: Path) -> None:
    assert len(run(frozen, tiny_encoder).data.training[0].paraphrases) > 1
    few = run(frozen, tiny_encoder, paraphrases="definition")
    assert [t.paraphrases for t in few.data.training] == [
        [f"Say {'red' if t.name == 'one' else 'blue'}."] for t in few.data.training
    ]


def test_contrastive_loss_has_no_gradient_for_the_right_adapter() -> None:
    own = torch.tensor([1.0, 2.0], requires_grad=True)
    other = torch.tensor([1.5, 9.0], requires_grad=True)
    loss = contrastive_loss(own, other, margin=1.0)
    assert loss.item() == pytest.approx(0.25)  # (1 + 1 - 1.5) over two examples; the second is past the margin
    loss.backward()
    assert own.grad is None
    assert other.grad is not None and other.grad.tolist() == [-0.5, 0.0]


def test_contrastive_step_uses_adapters_of_other_tasks(frozen: FrozenBase, tiny_encoder: Path) -> None:
    plain = run(frozen, tiny_encoder).step(0)
    contrasted = run(frozen, tiny_encoder, contrast=0.5, contrast_rows=3).step(0)
    # At the start every adapter is the same, so another task's is no worse and the whole margin is
    # due.
    assert contrasted.metrics["nll"] == pytest.approx(plain.metrics["nll"])
    assert contrasted.loss.item() == pytest.approx(plain.loss.item() + 0.5, abs=0.1)
    assert contrasted.tokens > plain.tokens


def test_a_run_starts_from_a_checkpoint_of_its_shape_only(
    frozen: FrozenBase, tiny_encoder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    sft = run(frozen, tiny_encoder)
    sft.start_from(tiny_checkpoint)
    trained, _ = load_checkpoint(tiny_checkpoint)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(sft.model.state_dict()[name], tensor)
    sft.save(tmp_path / "a", RunState())
    sft.start_from(tmp_path / "a")
    sft.save(tmp_path / "b", RunState())
    assert load_config(tmp_path / "b").training["start"]["method"] == "sft"  # where it came from is kept
    with pytest.raises(CheckpointError, match="another architecture"):
        run(frozen, tiny_encoder, variant="M").start_from(tiny_checkpoint)


def test_a_hyperdecoder_gives_every_input_an_adapter_of_its_own(
    frozen: FrozenBase, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sft = run(frozen, tiny_encoder, reads="input", rows=6)
    embedded: list[list[str]] = []
    embed = sft.adapters.embed
    monkeypatch.setattr(sft.adapters, "embed", lambda texts: (embedded.append(texts), embed(texts))[1])
    result = sft.step(0)
    assert result.metrics["examples"] == 6  # one a row
    assert len(embedded[0]) == 6 and set(embedded[0]) <= set(WORDS)
    sft.validate.tasks = sft.data.training
    scores = sft.validate()
    assert scores["validation_nll"] == pytest.approx(scores["validation_nll_mismatched"], abs=1e-5)  # untrained


def test_a_run_on_fewer_tasks_keeps_its_validation(frozen: FrozenBase) -> None:
    config = SftConfig(steps=1, rank=2, validation_share=0.2)
    given = [task(f"t{i}", "red") for i in range(40)]
    whole, part = (sft_data(given, config, frozen, count=count) for count in (None, 5))
    assert len(part.training) == 5 < len(whole.training)
    assert part.validation == whole.validation != []


@pytest.mark.parametrize(
    ("count", "longest", "complaint"),
    [(1, 1000, "validation_share is 1e-09"), (20, 3, "at most 3 tokens")],
)
def test_run_without_enough_tasks_is_refused_at_the_start(
    tiny_base: Path, tiny_encoder: Path, tmp_path: Path, count: int, longest: int, complaint: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(f"{task(f't{i}', 'red').model_dump_json()}\n" for i in range(count)))
    config = SftConfig(steps=1, rank=2, validation_share=1e-9, max_example_tokens=longest)
    with pytest.raises(TaskFileError, match=complaint):
        train_sft([path], tmp_path / "run", config, base_model=tiny_base, encoder=str(tiny_encoder))
    with pytest.raises(TaskFileError, match=complaint):
        train_multitask([path], tmp_path / "run", config, base_model=tiny_base)
