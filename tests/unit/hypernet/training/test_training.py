import gzip
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hypernet.data.tasks import (
    Instance,
    Task,
    TaskFileError,
    load_descriptions,
    load_tasks,
    split_validation,
    with_descriptions,
)
from hypernet.lora import InvalidLoraError, LoraWeights
from hypernet.packing import Example, fit_row, pack, shared_prefix
from hypernet.training.config import (
    ReconstructionConfig,
    SftConfig,
    TrainingConfigError,
    assignments,
    load_config,
)
from hypernet.training.loop import RunState, StepResult, Trainer, read_log, schedule

ROW = [Example([1, 2, 3, 4], [9, 10]), Example([1, 2, 3, 5, 6], [11]), Example([1, 2, 3, 4], [12, 13, 14])]


def test_a_row_shares_its_prefix_and_predicts_every_response_token() -> None:
    packed = pack([ROW, ROW[:1]], multiple=8)
    assert shared_prefix(ROW) == 3
    assert packed.tokens.shape == (2, 16)
    assert packed.targets.tolist() == [9, 10, 11, 12, 13, 14, 9, 10]
    assert packed.example.tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
    assert packed.example_rows.tolist() == [0, 0, 0, 1]
    # positions restart after the prefix, as if each example stood alone
    assert packed.positions[0, :12].tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5]


def test_examples_attend_to_the_prefix_and_themselves_only() -> None:
    mask = pack([ROW], multiple=16).mask[0, 0]
    second = range(6, 9)  # after [prefix 0-2][first 3-5]
    for query in second:
        assert mask[query].nonzero().flatten().tolist() == [0, 1, 2, *range(6, query + 1)]
    assert mask.any(dim=-1).all()  # no softmax over nothing, padding included


def test_identical_prompts_keep_one_token_of_their_own() -> None:
    equal = [Example([1, 2, 3], [4]), Example([1, 2, 3], [5])]
    assert shared_prefix(equal) == 2
    assert pack([equal]).columns.tolist() == [2, 4]


def test_mean_is_taken_per_example_first() -> None:
    packed = pack([ROW])
    values = torch.tensor([1.0, 3.0, 5.0, 1.0, 1.0, 4.0])
    assert packed.mean_per_example(values).tolist() == [2.0, 5.0, 2.0]


def test_a_row_stays_within_its_budget() -> None:
    assert len(fit_row(ROW, 9)) == 2
    assert len(fit_row(ROW, 1)) == 1  # never empty


def test_plain_and_gzipped_task_files_are_read_and_faults_are_named(tmp_path: Path) -> None:
    task = {"task": "t", "descriptions": ["do"], "instances": [{"input": "a", "output": ["b"]}]}
    plain, packed = tmp_path / "t.jsonl", tmp_path / "t.jsonl.gz"
    plain.write_text(json.dumps(task) + "\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_tasks(plain) == load_tasks(packed)
    plain.write_text(json.dumps(task) + "\n" + json.dumps(task | {"instances": []}) + "\n")
    with pytest.raises(TaskFileError, match="line 2: instances"):
        load_tasks(plain)
    plain.write_text(json.dumps(task | {"descriptions": []}) + "\n")
    with pytest.raises(TaskFileError, match="line 1: descriptions"):
        load_tasks(plain)
    with pytest.raises(TaskFileError, match="does not exist"):
        load_tasks(tmp_path / "none.jsonl")


def test_the_validation_share_is_stable_and_disjoint(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [
        json.dumps({"task": f"t{i}", "descriptions": ["d"], "instances": [{"input": "", "output": [""]}]})
        for i in range(200)
    ]
    path.write_text("\n".join(lines))
    tasks = load_tasks(path)
    train, validation = split_validation(tasks, 0.2)
    again, _ = split_validation(tasks[::-1], 0.2)
    assert {t.task for t in train} == {t.task for t in again}
    assert len(train) + len(validation) == 200
    assert 20 < len(validation) < 60
    assert [len(part) for part in split_validation(tasks, 1e-9)] == [199, 1]
    assert [len(part) for part in split_validation(tasks[:1], 1e-9)] == [1, 0]
    named = [task.model_copy(update={"name": task.task}) for task in tasks]
    built = [task.model_copy(update={"task": f"derived_{task.task}", "derived": True}) for task in named]
    with_built, same = split_validation([*named, *built], 0.2)
    assert {t.task for t in same} == {t.task for t in validation}
    assert len(with_built) == 2 * len(train)  # what validates does not train, under no name


def test_one_input_in_five_is_held_out_with_all_its_answers() -> None:
    inputs = [*"abcdefghij", "e", "a"]
    task = Task(task="t", descriptions=["d"], instances=[Instance(input=i, output=[i]) for i in inputs])
    training, held_out = task.split_instances()
    assert [i.input for i in held_out] == ["e", "j", "e"]
    assert [i.input for i in training] == [*"abcdfghi", "a"]


def test_unknown_configuration_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("learning_rte: 1\n")
    with pytest.raises(TrainingConfigError, match="learning_rte"):
        load_config(SftConfig, path, steps=1)
    with pytest.raises(TrainingConfigError, match="give --steps or --minutes"):
        load_config(SftConfig, None)


def test_configurations_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingConfigError, match=r"none\.yaml does not exist"):
        load_config(SftConfig, tmp_path / "none.yaml")
    path = tmp_path / "c.yaml"
    path.write_text("rows: [1\n")
    with pytest.raises(TrainingConfigError, match=r"c\.yaml: is not YAML"):
        load_config(SftConfig, path)
    with pytest.raises(TrainingConfigError, match="--set rows: is not YAML"):
        assignments(["rows=[1"])


@pytest.mark.parametrize("path", sorted(Path("hypernet/configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_load(path: Path) -> None:
    kind = ReconstructionConfig if "recon" in path.stem else SftConfig
    assert load_config(kind, path).learning_rate > 0


def test_the_schedule_rises_and_falls_to_zero() -> None:
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(1.0, 0.1) == pytest.approx(0.0)


def trainer(folder: Path, steps: int, stop_at: int | None = None) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def compute(number: int) -> StepResult:
        if number == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        return StepResult(F.mse_loss(model(x), x.sum(-1, keepdim=True)), 8, {})

    def save_best(path: Path, _: RunState) -> None:
        path.mkdir(exist_ok=True)

    return Trainer(folder, model, SftConfig(steps=steps), compute, lambda: {"v": 0.0}, save_best)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypernet.training.loop.SAVE_SECONDS", -1.0)  # save after every step
    whole = trainer(tmp_path / "whole", 12)
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "broken", 12, stop_at=7).run()
    second = trainer(tmp_path / "broken", 12)
    assert second.resume()
    assert second.state.step == 7
    second.run()
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    steps = [line["step"] for line in read_log(tmp_path / "broken") if line["kind"] == "step"]
    assert steps == list(range(1, 13))


def test_a_run_of_another_shape_is_not_resumed(tmp_path: Path) -> None:
    trainer(tmp_path / "run", 1).run()
    other = Trainer(tmp_path / "run", nn.Linear(3, 1), SftConfig(steps=1), None, None, None)  # type: ignore[arg-type]
    with pytest.raises(TrainingConfigError, match="network of another shape"):
        other.resume()


def test_flattening_is_inverted_and_invalid_vectors_are_named() -> None:
    from tests.unit.hypernet.test_model import SPEC

    flat = torch.randn(SPEC.num_parameters)
    lora = LoraWeights.unflatten(SPEC, flat)
    assert torch.equal(lora.flatten(), flat)
    lora.validate()
    with pytest.raises(InvalidLoraError, match="flat adapter"):
        LoraWeights.unflatten(SPEC, flat[:-1])
    flat[0] = torch.nan
    with pytest.raises(InvalidLoraError, match=r"q_proj\.A"):
        lora.validate()
    with pytest.raises(InvalidLoraError, match="modules are"):
        LoraWeights(SPEC, {}, {}).validate()


def test_sigterm_ends_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    saved: list[str] = []
    run = trainer(tmp_path / "run", 12)
    compute = run._compute

    def terminated(number: int) -> StepResult:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(number)

    run._compute = terminated
    run._validate_first = True
    run._save_checkpoint = lambda folder, _: saved.append(folder.name)
    assert run.run().step == 4  # the step in which it came is finished
    assert saved == ["best", "last"]
    assert signal.getsignal(signal.SIGTERM) is before
    again = trainer(tmp_path / "run", 12)
    assert again.resume()
    assert again.run().step == 12


def test_further_descriptions_are_read_by_task(tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text(
        '{"task": "a", "descriptions": ["New.", "Old."]}\n{"task": "b", "descriptions": ["Say b."]}\n'
    )
    more = load_descriptions(path)
    instances = [Instance(input="x", output=["y"])]
    tasks = [
        Task(task="a", descriptions=["Old."], instances=instances),
        Task(task="b", definition="The definition.", instances=instances),
        Task(task="c", descriptions=["c"], instances=instances),
    ]
    extended = with_descriptions(tasks, more)
    assert [t.descriptions for t in extended] == [["Old.", "New."], ["The definition.", "Say b."], ["c"]]
    assert [t.held_out_paraphrases[0] for t in extended] == [t.held_out_paraphrases[0] for t in tasks]
    with pytest.raises(TaskFileError, match="the further descriptions are for other tasks"):
        with_descriptions(tasks[2:], more)
    path.write_text('{"task": "a", "descriptions": []}\n')
    with pytest.raises(TaskFileError, match="line 1: descriptions"):
        load_descriptions(path)


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 half an archive"])
def test_a_state_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    made = trainer(tmp_path, 1)
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(TrainingConfigError, match=r"state\.pt is no state of a run"):
        made.resume()


def test_a_configuration_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingConfigError, match=r"c\.yaml: is no text"):
        load_config(SftConfig, path)
