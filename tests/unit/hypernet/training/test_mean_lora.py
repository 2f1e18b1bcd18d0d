"""The LoRA nearest to the mean of a hypernetwork's adapters,
and a multi-task run that starts at it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hypernet.checkpoint import CheckpointError
from hypernet.generator import Generator
from hypernet.peft_io import read_provenance
from hypernet.training.loop import read_log
from hypernet.training.mean_lora import mean_lora
from hypernet.training.static_lora import train_multitask
from tests.unit.hypernet.training.test_static_and_oracles import multitask_config, write_tasks

TEXTS = [f"Say {word}." for word in ("yes", "no", "perhaps", "never", "always")]


def test_mean_of_one_adapter_is_that_adapter(tiny_generator: Generator) -> None:
    (generated,) = tiny_generator.generate(TEXTS[:1])
    found = mean_lora(tiny_generator, TEXTS[:1], [3.0])
    for module in found.a:
        torch.testing.assert_close(found.delta(module), generated.delta(module), rtol=1e-4, atol=1e-6)


def test_mean_of_many_adapters_is_the_best_approximation_of_its_rank(
    tiny_generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernet.training.mean_lora.CHUNK", 2)
    weights = [1.0, 2.0, 3.0, 1.0, 0.5]
    found = mean_lora(tiny_generator, TEXTS, weights)
    generated = tiny_generator.generate(TEXTS)
    for module in found.a:
        deltas = torch.stack([w.delta(module) for w in generated])
        mean = (deltas * (torch.tensor(weights) / sum(weights))[:, None, None, None]).sum(0)
        left = (found.delta(module) - mean).square().sum((1, 2)).sqrt()
        dropped = torch.linalg.svdvals(mean)[:, found.spec.rank :].square().sum(1).sqrt()
        torch.testing.assert_close(left, dropped, rtol=1e-3, atol=1e-6)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks.jsonl", [f"{letter}{i}" for letter in "ab" for i in range(4)])


def test_multitask_run_validates_its_start_before_the_first_step(
    tiny_base: Path, tiny_checkpoint: Path, tiny_encoder: Path, tasks: Path, tmp_path: Path
) -> None:
    shape = Generator.load(tiny_checkpoint, str(tiny_encoder)).spec
    settings = multitask_config(
        steps=1, rank=shape.rank, alpha=shape.alpha, target_modules=tuple(m.name for m in shape.modules)
    )
    out = tmp_path / "run"
    train_multitask(
        [tasks], out, settings, base_model=tiny_base, encoder=str(tiny_encoder), start=tiny_checkpoint
    )
    first = next(line for line in read_log(out) if line["kind"] == "validation")
    assert first["step"] == 0
    assert read_provenance(out / "last")["t2l.steps"] == "1"


def test_another_shape_is_refused(
    tiny_base: Path, tiny_checkpoint: Path, tiny_encoder: Path, tasks: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="this run trains"):
        train_multitask(
            [tasks],
            tmp_path / "run",
            multitask_config(rank=7),
            base_model=tiny_base,
            encoder=str(tiny_encoder),
            start=tiny_checkpoint,
        )
