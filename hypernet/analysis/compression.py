"""Compression: how much of a LoRA library a hypernetwork keeps, as weight error against
performance.

Source: the compression study of T2L (Charakorn et al. 2025, section 4.1). Networks of falling size
reconstruct a library of task LoRAs. Each task is a point: the error |B A - B* A*| / |B* A*| against
the share of the oracle's gain that is kept. A gain is a difference in NLL from the base model.
Errors are those that a run logged for its best checkpoint. Gains come from evaluation results of
that checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from hypernet.errors import T2lError
from hypernet.evaluation.metrics import bootstrap
from hypernet.evaluation.results import EvalResult
from hypernet.training.loop import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_PREFIX = "error/"
RECONSTRUCTED, ORACLE, BASE = "training", "oracle", "base"
"""Conditions: the network's LoRA from a training description, the task's own LoRA, no LoRA."""
MARKERS = ("o", "s", "^", "D", "v", "P")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


class CompressionError(T2lError):
    """A run or a result is missing; the message names the command that makes it."""


@dataclass(frozen=True, slots=True)
class TaskReconstruction:
    """One task's LoRA as one network reconstructs it.

    Attributes:
        network: name of the run.
        task: the task.
        error: |B A - B* A*| / |B* A*|.
        gain, oracle_gain: NLL of the base model minus that of the network's LoRA, and of the
            oracle. In nats.
        score, oracle_score: exact match or ROUGE-L, 0..1.
    """

    network: str
    task: str
    error: float
    gain: float
    oracle_gain: float
    score: float
    oracle_score: float

    @property
    def kept_share(self) -> float:
        """Share of the oracle's gain that the network's LoRA keeps."""
        return self.gain / self.oracle_gain


def compression(runs: Sequence[Path], results: Sequence[EvalResult]) -> list[TaskReconstruction]:
    """Every task of every run.

    Args:
        runs: folders of `t2l train reconstruction`. Their names are the systems of the results.
        results: of `t2l eval --conditions base,oracle,training`.

    Raises:
        CompressionError: a run or a result is missing.
    """
    by_key = {(r.condition, r.system if r.condition == RECONSTRUCTED else "", r.task): r for r in results}
    tasks = []
    for run in runs:
        for task, error in _errors(run).items():
            reconstructed, oracle, base = (
                _result(by_key, condition, run.name if condition == RECONSTRUCTED else "", task)
                for condition in (RECONSTRUCTED, ORACLE, BASE)
            )
            gain, oracle_gain = (_nll(base) - _nll(lora) for lora in (reconstructed, oracle))
            scores = (reconstructed.score, oracle.score)
            tasks.append(TaskReconstruction(run.name, task, error, gain, oracle_gain, *scores))
    return tasks


def table(tasks: Sequence[TaskReconstruction], seed: int = 0) -> str:
    """One row per network: gains over the oracles' gains, with 95% bootstrap intervals over tasks.

    Raises:
        CompressionError: no task's oracle gains anything.
    """
    measured = _with_oracle_gain(tasks)
    lines = [
        "| network | relative error | share of the oracle's NLL gain kept % | score % | oracle's score % |",
        "|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(t.network for t in measured):
        of_network = [t for t in measured if t.network == network]
        shares, weights = [100 * t.kept_share for t in of_network], [t.oracle_gain for t in of_network]
        share = bootstrap(shares, seed, weights=weights)
        error = fmean(t.error for t in of_network)
        score = 100 * fmean(t.score for t in of_network)
        oracle_score = 100 * fmean(t.oracle_score for t in of_network)
        lines.append(
            f"| {network} | {error:.3f} | {share.mean:.0f} [{share.low:.0f}, {share.high:.0f}] "
            f"| {score:.1f} | {oracle_score:.1f} |"
        )
    if excluded := sorted({t.task for t in tasks} - {t.task for t in measured}):
        lines += ["", f"Left out, because the oracle gains nothing: {', '.join(excluded)}."]
    return "\n".join(lines) + "\n"


def draw(tasks: Sequence[TaskReconstruction]) -> Figure:
    """Error against share kept, with a marker per network.

    Raises:
        CompressionError: no task's oracle gains anything.
    """
    from matplotlib.figure import Figure

    measured = _with_oracle_gain(tasks)
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    panel = figure.subplots()
    for i, network in enumerate(dict.fromkeys(t.network for t in measured)):
        of_network = [t for t in measured if t.network == network]
        panel.scatter(
            [t.error for t in of_network],
            [100 * t.kept_share for t in of_network],
            s=16,
            marker=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            label=network,
        )
    panel.axhline(100, color="black", linewidth=0.6)
    panel.set_xlabel("relative error of B A", fontsize=8)
    panel.set_ylabel("oracle's NLL gain kept, %", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.legend(fontsize=7, frameon=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    return figure


def _with_oracle_gain(tasks: Sequence[TaskReconstruction]) -> list[TaskReconstruction]:
    """The tasks whose oracle is better than the base model."""
    found = [t for t in tasks if t.oracle_gain > 0]
    if not found:
        raise CompressionError(
            "no oracle is better than the base model: train them longer with `t2l train oracles --steps`"
        )
    return found


def _errors(run: Path) -> Mapping[str, float]:
    """Task -> error of the run's best checkpoint."""
    if not (run / "log.jsonl").is_file():
        raise CompressionError(f"{run} holds no run: `t2l train reconstruction --out {run}` makes one")
    try:
        validations = [line for line in read_log(run) if line["kind"] == "validation"]
    except (ValueError, KeyError) as error:
        raise CompressionError(f"{run / 'log.jsonl'} is damaged: {error}") from error
    if not validations:
        raise CompressionError(
            f"{run} has no validation yet: continue with `t2l train reconstruction --resume`"
        )
    best = min(validations, key=lambda line: line["loss"])
    errors = {k.removeprefix(ERROR_PREFIX): v for k, v in best.items() if k.startswith(ERROR_PREFIX)}
    if not errors:
        raise CompressionError(
            f"{run} logged no reconstruction errors: it is no run of `t2l train reconstruction`"
        )
    return errors


def _result(
    by_key: Mapping[tuple[str, str, str], EvalResult], condition: str, system: str, task: str
) -> EvalResult:
    result = by_key.get((condition, system, task))
    if result is None:
        raise CompressionError(
            f"no result of {task} under {condition} {system}: `t2l eval {system or 'RUN'}/best "
            f"--name {system or 'RUN'} --instances held-out --oracles LIBRARY "
            f"--conditions base,oracle,training` makes it"
        )
    return result


def _nll(result: EvalResult) -> float:
    if result.nll is None:
        raise CompressionError(
            f"the result of {result.task} under {result.condition} has no likelihood: evaluate without --server"
        )
    return result.nll
