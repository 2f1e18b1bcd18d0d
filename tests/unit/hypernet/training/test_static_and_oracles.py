"""Plain LoRAs on a tiny random model: they learn, resume, and are independent of each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hypernet.data.tasks import Task, TaskFileError, load_tasks, select_names
from hypernet.frozen import FrozenBase
from hypernet.library import Library, LibraryError
from hypernet.peft_io import load_adapter, read_provenance
from hypernet.training import oracle
from hypernet.training.config import MultitaskConfig, OracleConfig
from hypernet.training.loop import read_log
from hypernet.training.oracle import OracleGroup, clip_norm_per_lora, train_oracles
from hypernet.training.static_lora import MultitaskRun, StaticLora, train_multitask

SMALL = {"rank": 2, "alpha": 4, "row_tokens": 60, "row_examples": 4, "learning_rate": 2e-2, "warmup": 0.0}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def oracle_config(**changes: object) -> OracleConfig:
    return OracleConfig.model_validate({**SMALL, "rows": 3, "steps": 6, "choose_every": 2, **changes})


def write_tasks(path: Path, names: list[str]) -> Path:
    """Tasks that answer any letter with the first letter of their name."""
    tasks = [
        {
            "task": name,
            "descriptions": [f"Answer {name[0]}.", f"Say {name[0]}."],
            "instances": [{"input": letter * (1 + i % 2), "output": [name[0] * 2]} for letter in LETTERS],
        }
        for i, name in enumerate(names)
    ]
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks.jsonl", ["apple", "berry", "cherry", "date"])


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model in fp32, so that what should be equal is."""
    plain = FrozenBase.__init__

    def in_fp32(self: FrozenBase, folder: Path, spec: object, device: str) -> None:
        plain(self, folder, spec, device, torch.float32)  # type: ignore[arg-type]

    monkeypatch.setattr(FrozenBase, "__init__", in_fp32)


def base(folder: Path) -> FrozenBase:
    return FrozenBase(folder, oracle_config().lora_spec(folder), "cpu", torch.float32)


def prepared(path: Path, frozen: FrozenBase, config: OracleConfig) -> list[oracle.OracleTask]:
    ready = [oracle._prepare(task, frozen, config) for task in load_tasks(path)]
    return [task for task in ready if task]


def flat(library: Library, name: str) -> torch.Tensor:
    return library[name].flatten()


def test_static_lora_starts_at_zero_delta_w_and_depends_on_its_seed_only(tiny_base: Path) -> None:
    spec = oracle_config().lora_spec(tiny_base)
    pair, lone = StaticLora(spec, [1, 2]), StaticLora(spec, [2])
    for m in spec.modules:
        assert torch.equal(pair.A[m.name][1], lone.A[m.name][0])
        assert not torch.equal(pair.A[m.name][0], pair.A[m.name][1])
        assert not pair.B[m.name].any()
        assert pair.A[m.name].abs().max() <= m.in_features**-0.5


def test_gradients_are_clipped_per_lora(tiny_base: Path) -> None:
    model = StaticLora(oracle_config().lora_spec(tiny_base), [1, 2])
    for p in model.parameters():
        p.grad = torch.ones_like(p)
        p.grad[1] = 1e-6
    largest = clip_norm_per_lora(model, 1.0)
    norms = [torch.stack([p.grad[k].square().sum() for p in model.parameters()]).sum().sqrt() for k in (0, 1)]  # type: ignore[index]
    assert largest > 1
    assert norms[0].item() == pytest.approx(1.0, abs=1e-4)
    assert norms[1].item() == pytest.approx(largest.item() * 1e-6, rel=1e-4)  # small ones stay as they are


def test_the_parts_of_a_task_share_no_example(tiny_base: Path, tasks: Path) -> None:
    for task in prepared(tasks, base(tiny_base), oracle_config()):
        parts = [task.training.examples, task.choosing, task.held_out]
        inputs = [{tuple(e.prompt) for e in part} for part in parts]
        assert sum(map(len, inputs)) == len(set.union(*inputs)) == len(LETTERS)
        assert all(inputs)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("start", ["shared", "own"])
def test_oracle_in_a_group_equals_one_trained_alone(
    tiny_base: Path, tasks: Path, tmp_path: Path, start: str
) -> None:
    config = oracle_config(start=start)
    together = train_oracles([tasks], tmp_path / "all", config, base_model=tiny_base)
    alone = train_oracles([tasks], tmp_path / "one", config, base_model=tiny_base, only="berry")
    assert sorted(together) == ["apple", "berry", "cherry", "date"]
    assert alone.names == ["berry"]
    torch.testing.assert_close(flat(together, "berry"), flat(alone, "berry"), rtol=1e-4, atol=1e-6)
    a, b = together.entry("berry"), alone.entry("berry")
    assert a.steps == b.steps > 0
    assert (a.loss, a.held_out_loss) == pytest.approx((b.loss, b.held_out_loss), rel=1e-4)
    same = torch.equal(together["apple"].a["q_proj"], together["date"].a["q_proj"])
    assert not same  # trained apart


def test_oracles_learn_their_task_and_not_anothers(tiny_base: Path, tasks: Path) -> None:
    config = oracle_config(steps=40)
    frozen = base(tiny_base)
    group = OracleGroup(config, prepared(tasks, frozen, config), frozen)
    optimizer = torch.optim.AdamW(group.model.lora.parameters(), lr=config.learning_rate)
    first = group.step(0).metrics["nll"]
    for number in range(40):
        group.step(number).loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    group.select_best(40)
    held_out = [task.held_out for task in group.tasks]
    own = group.losses(held_out, group.model.best())
    other = group.losses(held_out, group.model.best().take([1, 2, 3, 0]))
    assert own.mean() < 0.5 * first
    assert (own < other).all()


@pytest.mark.usefixtures("exact")
def test_killed_group_resumes_and_finished_tasks_are_kept(
    tiny_base: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernet.training.loop.SAVE_SECONDS", -1.0)  # save after every step
    config = oracle_config(rows=2)

    def train(folder: str) -> Library:
        return train_oracles([tasks], tmp_path / folder, config, base_model=tiny_base)

    whole = train("whole")
    step, seen = OracleGroup.step, []

    def killed(self: OracleGroup, number: int) -> object:
        seen.append(number)
        if len(seen) == 10:  # in the middle of the second group
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(OracleGroup, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            train("broken")
        assert len(Library.open(tmp_path / "broken")) == 2
        seen.clear()
        patch.setattr(OracleGroup, "step", lambda self, number: (seen.append(number), step(self, number))[1])
        broken = train("broken")
    assert seen == [3, 4, 5]
    assert whole.names == broken.names
    for name in whole:
        assert torch.equal(flat(whole, name), flat(broken, name))
    assert not list((tmp_path / "broken").rglob("state.pt"))


def test_tasks_that_cannot_be_trained_on_are_reported(
    tiny_base: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(**changes: object) -> Library:
        config = oracle_config(**{"steps": 1, **changes})
        return train_oracles([tasks], tmp_path / "lib", config, base_model=tiny_base, count=1)

    with pytest.raises(TaskFileError, match="no task has enough"):
        train(max_example_tokens=3)
    assert "is dropped: fewer than 5 examples of at most 3 tokens" in capsys.readouterr().out
    train()
    with pytest.raises(LibraryError, match="method is"):
        train(start="own")
    with pytest.raises(LibraryError, match="lora is"):
        train(rank=1)


def test_choices_of_tasks_are_nested_and_checked() -> None:
    names = [f"t{i}" for i in range(50)]
    assert select_names(names) == names
    assert select_names(names, only="t4, t2") == ["t2", "t4"]
    assert select_names(names, only="t4*,t2") == ["t2", "t4", *(f"t4{i}" for i in range(10))]
    assert select_names(names, only="*") == names
    few, more = select_names(names, count=5), select_names(names[::-1], count=20)
    assert set(few) < set(more)
    with pytest.raises(TaskFileError, match=r"called t77, x\*"):
        select_names(names, only="t77,x*,t1")
    with pytest.raises(TaskFileError, match="51 tasks"):
        select_names(names, count=51)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "many.jsonl", [f"{letter}{i}" for letter in "ab" for i in range(6)])


def multitask_config(**changes: object) -> MultitaskConfig:
    return MultitaskConfig.model_validate({**SMALL, "rows": 4, "steps": 30, "validation_share": 0.3, **changes})


def test_one_lora_for_all_tasks_learns_into_a_peft_folder(tiny_base: Path, many: Path, tmp_path: Path) -> None:
    train_multitask([many], tmp_path / "run", multitask_config(), base_model=tiny_base)
    losses = [line["nll"] for line in read_log(tmp_path / "run") if line["kind"] == "step"]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    best = tmp_path / "run" / "best"
    assert load_adapter(best, tiny_base).spec == multitask_config().lora_spec(tiny_base)
    assert read_provenance(best)["t2l.method"] == "multitask"
    with pytest.raises(FileExistsError, match="--resume"):
        train_multitask([many], tmp_path / "run", multitask_config(), base_model=tiny_base)


@pytest.mark.usefixtures("exact")
def test_a_killed_multitask_run_resumes(
    tiny_base: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernet.training.loop.SAVE_SECONDS", -1.0)
    config = multitask_config(steps=6)
    step = MultitaskRun.step

    def killed(self: MultitaskRun, number: int) -> object:
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number)

    train_multitask([many], tmp_path / "whole", config, base_model=tiny_base)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MultitaskRun, "step", killed)
        train_multitask([many], tmp_path / "broken", config, base_model=tiny_base)
    train_multitask([many], tmp_path / "broken", config, base_model=tiny_base, resume=True)
    whole, broken = (load_adapter(tmp_path / run / "best", tiny_base).flatten() for run in ("whole", "broken"))
    assert torch.equal(whole, broken)


def test_shorter_tasks_share_groups(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = write_tasks(tmp_path / "mixed.jsonl", ["a0", "b1", "c2", "d3"])  # every other one has longer inputs
    config = oracle_config(rows=2, steps=1)
    train_oracles([mixed], tmp_path / "lib", config, base_model=tiny_base)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("group ")]
    assert lines == ["group 1 of 2: a0, c2", "group 2 of 2: b1, d3"]


def test_task_with_too_few_examples_is_left_out(tiny_base: Path) -> None:
    few = Task.model_validate({"task": "t", "instances": [{"input": "a", "output": ["b"]}] * 4})
    assert oracle._prepare(few, base(tiny_base), oracle_config()) is None
