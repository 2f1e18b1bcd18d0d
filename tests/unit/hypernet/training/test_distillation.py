"""A student that learns to reproduce the adapters of its teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hypernet.checkpoint import load_checkpoint
from hypernet.data.tasks import Instance, Task, TaskFileError
from hypernet.encoder import Encoder
from hypernet.generator import Generator, MismatchError
from hypernet.lora import LoraBatch
from hypernet.training.config import DistillationConfig
from hypernet.training.distance import relative_error, squared_relative_error
from hypernet.training.distillation import DistillationRun
from hypernet.training.loop import Trainer

TASKS = [
    Task(
        task=f"t{i}",
        descriptions=[f"Say {word}.", f"Answer {word}."],
        instances=[Instance(input="", output=[""])],
    )
    for i, word in enumerate(("red", "blue", "green", "black", "white", "grey", "pink", "brown"))
]


def student(teacher: Path, encoder: Path, variant: str, steps: int) -> DistillationRun:
    config = DistillationConfig(
        variant=variant,
        steps=steps,
        latent_size=32,
        head_input_size=32,
        learning_rate=1e-2,
        validation_share=0.3,
    )
    return DistillationRun(config, teacher, TASKS, Encoder.load(str(encoder)))


@pytest.mark.parametrize("variant", ["M", "S"])
def test_student_approximates_the_teacher_and_can_be_served(
    tiny_checkpoint: Path, tiny_encoder: Path, tmp_path: Path, variant: str
) -> None:
    run = student(tiny_checkpoint, tiny_encoder, variant, steps=60)
    before = run.validate()["relative_error"]
    assert before == pytest.approx(1.0, abs=0.15)  # the initial adapters are nearly zero
    Trainer(tmp_path, run.model, run.config, run.step, run.validate, run.save).run()
    after = run.validate()["relative_error"]
    assert after < 0.85 * before
    served = Generator.load(tmp_path / "best", str(tiny_encoder))
    teacher, _ = load_checkpoint(tiny_checkpoint)
    with torch.inference_mode():
        target = teacher.eval()(served.embed(["Say red."]))
    generated = served.generate(["Say red."])[0]
    batch = LoraBatch(
        {m: t[None] for m, t in generated.a.items()}, {m: t[None] for m, t in generated.b.items()}
    )
    assert relative_error(batch, target).item() < 0.9


def test_the_error_has_a_gradient_where_it_is_zero(tiny_checkpoint: Path) -> None:
    teacher, _ = load_checkpoint(tiny_checkpoint)
    generated = teacher.eval()(torch.randn(1, 16))
    error = squared_relative_error(
        generated, LoraBatch(*({m: t.detach() for m, t in d.items()} for d in generated))
    )
    assert error.item() == pytest.approx(0.0, abs=1e-9)
    error.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in teacher.parameters())


def test_another_encoder_than_the_teachers_is_refused(
    tiny_checkpoint: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    encoder = Encoder.load(str(tiny_encoder))
    encoder.fingerprint = "another"
    with pytest.raises(MismatchError, match="--encoder"):
        DistillationRun(DistillationConfig(steps=1), tiny_checkpoint, TASKS, encoder)


def test_too_few_tasks_are_refused_before_training(tiny_checkpoint: Path, tiny_encoder: Path) -> None:
    encoder = Encoder.load(str(tiny_encoder))
    with pytest.raises(TaskFileError, match="0 to choose the checkpoint with"):
        config = DistillationConfig(steps=1, validation_share=1e-9)
        DistillationRun(config, tiny_checkpoint, TASKS[:1], encoder)
