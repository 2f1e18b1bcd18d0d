"""How well a network keeps the library it was taught to write: error of the weights against performance.

T2L's compression study (Charakorn et al. 2025, section 4.1 and its figure): networks
of falling size reconstruct a library of task LoRAs; each task is a point, its error
|B A - B* A*| / |B* A*| against its likelihood gain, as a share of what its own LoRA gains
over the base model. Errors are those that a run logged for its best checkpoint, gains those
of evaluation results of that checkpoint.
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

ERROR = "error/"
WRITTEN, OWN_LORA, BASE = "training", "oracle", "base"
"""Conditions of the results: by the network from a description it was taught, the task's LoRA, no LoRA."""
MARKERS = ("o", "s", "^", "D", "v", "P")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


class CompressionError(T2lError):
    """A run or a result that the comparison needs is not there; the message says which command makes it."""


@dataclass(frozen=True, slots=True)
class RetainedGain:
    """One task as one network writes it.

    Attributes:
        network: name of the run.
        task: the task.
        error: |B A - B* A*| / |B* A*|.
        gain, oracle_gain: over the base model in NLL, of the network's LoRA and of the task's own.
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
    def share(self) -> float:
        """What the network's LoRA keeps of the oracle's gain."""
        return self.gain / self.oracle_gain


def compression(runs: Sequence[Path], results: Sequence[EvalResult]) -> list[RetainedGain]:
    """Every task of every run.

    Args:
        runs: folders of `t2l train reconstruction`; their names are the systems' names in the results.
        results: of `t2l eval --conditions base,oracle,training`, the systems named after the runs.

    Raises:
        CompressionError: a result is missing.
    """
    found = {(c.condition, c.system if c.condition == WRITTEN else "", c.task): c for c in results}
    kept = []
    for run in runs:
        for task, error in _errors(run).items():
            written, oracle, base = (
                _result(found, condition, run.name if condition == WRITTEN else "", task)
                for condition in (WRITTEN, OWN_LORA, BASE)
            )
            gain, oracle_gain = (_nll(base) - _nll(lora) for lora in (written, oracle))
            kept.append(RetainedGain(run.name, task, error, gain, oracle_gain, written.score, oracle.score))
    return kept


def table(kept: Sequence[RetainedGain], seed: int = 0) -> str:
    """One row per network: the gains kept over the oracles' gains, with 95% bootstrap intervals over tasks.

    Raises:
        CompressionError: no task's oracle gains anything.
    """
    gainful = _gainful(kept)
    lines = [
        "| network | relative error | share of the oracle's NLL gain kept % | score % | oracle's score % |",
        "|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(k.network for k in gainful):
        mine = [k for k in gainful if k.network == network]
        share = bootstrap([100 * k.share for k in mine], seed, weights=[k.oracle_gain for k in mine])
        error = fmean(k.error for k in mine)
        lines.append(
            f"| {network} | {error:.3f} | {share.mean:.0f} [{share.low:.0f}, {share.high:.0f}] "
            f"| {100 * fmean(k.score for k in mine):.1f} | {100 * fmean(k.oracle_score for k in mine):.1f} |"
        )
    if without := sorted({k.task for k in kept} - {k.task for k in gainful}):
        lines += ["", f"Left out, as the oracle gains nothing: {', '.join(without)}."]
    return "\n".join(lines) + "\n"


def draw(kept: Sequence[RetainedGain]) -> Figure:
    """Error against share kept, a marker per network.

    Raises:
        CompressionError: no task's oracle gains anything.
    """
    from matplotlib.figure import Figure

    kept = _gainful(kept)
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    panel = figure.subplots()
    for i, network in enumerate(dict.fromkeys(k.network for k in kept)):
        mine = [k for k in kept if k.network == network]
        panel.scatter(
            [k.error for k in mine],
            [100 * k.share for k in mine],
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


def _gainful(kept: Sequence[RetainedGain]) -> list[RetainedGain]:
    """The tasks of which there is a gain to keep."""
    found = [k for k in kept if k.oracle_gain > 0]
    if not found:
        raise CompressionError(
            "no oracle is better than the base model: train them longer, `t2l train oracles --steps`"
        )
    return found


def _errors(run: Path) -> Mapping[str, float]:
    """Task -> error of the checkpoint that the run kept as its best, which is what results are made of."""
    if not (run / "log.jsonl").is_file():
        raise CompressionError(f"{run} holds no run: `t2l train reconstruction --out {run}` makes one")
    checks = [line for line in read_log(run) if line["kind"] == "validation"]
    if not checks:
        raise CompressionError(f"{run} is not finished: go on with `t2l train reconstruction --resume`")
    best = min(checks, key=lambda line: line["loss"])
    return {k.removeprefix(ERROR): v for k, v in best.items() if k.startswith(ERROR)}


def _result(
    found: Mapping[tuple[str, str, str], EvalResult], condition: str, system: str, task: str
) -> EvalResult:
    result = found.get((condition, system, task))
    if result is None:
        raise CompressionError(
            f"no result of {task} under {condition} {system}: `t2l eval {system or 'CKPT'}/best "
            f"--name {system or 'NAME'} --instances held-out --oracles LIBRARY "
            f"--conditions base,oracle,training` makes it"
        )
    return result


def _nll(result: EvalResult) -> float:
    if result.nll is None:
        raise CompressionError(f"the result of {result.task} under {result.condition} has no likelihood")
    return result.nll
