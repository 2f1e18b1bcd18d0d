"""The training loop: step, log, validate, save. A killed run continues where it last saved.

A step draws everything random from (seed, step number), so a resumed run sees the same batches as
one that never stopped. The folder of a run holds

    state.pt      network, optimiser, step, minutes: tensors and numbers only
    best/         the checkpoint with the lowest validation loss, ready to serve
    last/         the checkpoint of the last step, if the run started from a trained model
    log.jsonl     one line a step or validation
    tasks.tsv     the use of each task, and why (`training_data.py`)
"""

from __future__ import annotations

import json
import math
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypernet.training.config import Schedule, TrainingConfigError
from hypernet.training.distributed import Workers
from hypernet.training.progress import Reporter

SAVE_SECONDS = 120.0
SPEED_STEPS = 20
"""Steps over which the printed speed is averaged."""


@dataclass(slots=True)
class StepResult:
    """What one step computed."""

    loss: Tensor
    tokens: int
    metrics: dict[str, float]


@dataclass(slots=True)
class RunState:
    """State of a run."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf


def clip_global_norm(model: nn.Module, limit: float) -> Tensor:
    """Limit the norm of all gradients taken as one vector."""
    return nn.utils.clip_grad_norm_(model.parameters(), limit)


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse to write over a run.

    Raises:
        FileExistsError: the folder holds a run and `resume` is off.
    """
    if (folder / "state.pt").exists() and not resume:
        raise FileExistsError(
            f"{folder} holds a run already: add --resume to continue it, or name another folder"
        )


class Trainer:
    """Runs a step function to the end of its schedule.

    Args:
        folder: the run's folder, made if absent.
        model: the model to train.
        config: schedule and optimiser settings.
        compute: step number -> loss of that step, with its graph.
        validate: measures the model; the first number decides which checkpoint is best (lower is
            better).
        save_checkpoint: writes `model` to a folder; `best` of the state is the validation loss that
            it has.
        clip: limits the gradients of `model` to a norm, and returns the norm they had.
        workers: the processes of this run, if there are several. `compute` then gives this one's
            part of loss and metrics, and only the first process logs, validates and saves.
        reporter: prints the progress. None: on stdout.
        validate_first: the model is trained already. It is measured before the first step and may
            stay the best.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        config: Schedule,
        compute: Callable[[int], StepResult],
        validate: Callable[[], dict[str, float]],
        save_checkpoint: Callable[[Path, RunState], None],
        clip: Callable[[nn.Module, float], Tensor] = clip_global_norm,
        workers: Workers | None = None,
        reporter: Reporter | None = None,
        *,
        validate_first: bool = False,
    ) -> None:
        self._workers = workers or Workers("cpu")
        self._reporter = reporter or Reporter(shown=self._workers.is_main)
        self._recent: deque[float] = deque(maxlen=SPEED_STEPS)  # seconds of the latest steps
        self._losses: list[float] = []  # of the validations since the start or the resumption
        self._validate_first = validate_first
        self.folder, self.model, self.config, self._clip = folder, model, config, clip
        self._compute, self._validate, self._save_checkpoint = compute, validate, save_checkpoint
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.state = RunState()

    def resume(self) -> bool:
        """Load a saved run; False if there is none.

        Raises:
            TrainingConfigError: the file cannot be read, or is of a network of another shape.
        """
        path = self.folder / "state.pt"
        if not path.is_file():
            return False
        try:
            saved = torch.load(path, weights_only=True, map_location="cpu")  # each is copied to its device
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise TrainingConfigError(
                f"{path} is no state of a run: delete it to start anew ({reason})"
            ) from error
        try:
            self.model.load_state_dict(saved["model"])
        except RuntimeError as error:
            raise TrainingConfigError(
                f"{path} is of a network of another shape: resume with the settings that the run was started "
                f"with, or name another folder ({str(error).splitlines()[-1].strip()})"
            ) from error
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = RunState(**saved["state"])
        return True

    def run(self) -> RunState:
        """Train to the end of the schedule, or to the end of the step in which SIGTERM arrives.

        An interrupted run is validated and saved like a finished one, and can be resumed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        saved_at = validated_at = self.state.seconds
        with self._reporter.steps(), _set_on_sigterm() as stop:
            if self._validate_first and self.state.step == 0:
                self._run_validation()
            first = self._first_step()
            while self._fraction_done() < 1.0 and not stop.is_set():
                with first:
                    note = self._step()
                first = nullcontext()
                self._reporter.step(self._fraction_done(), f"{note}  ETA {self._eta()}")
                if self.state.seconds - validated_at > self.config.validate_minutes * 60:
                    self._run_validation()
                    validated_at = self.state.seconds
                if self.state.seconds - saved_at > SAVE_SECONDS:
                    self._save()
                    saved_at = self.state.seconds
            last = self._run_validation()
        if self._validate_first and self._workers.is_main:
            self._save_checkpoint(self.folder / "last", replace(self.state, best=last))
        self._save()
        return self.state

    def _first_step(self) -> AbstractContextManager[None]:
        """Around the first step of a compiled run, which takes minutes."""
        if getattr(self.config, "compile", False):
            return self._reporter.phase("compiling, in the first step")
        return nullcontext()

    def _step(self) -> str:
        """Take a step. Returns the text of its progress line."""
        started = time.perf_counter()
        torch.manual_seed(self.config.seed * 1_000_003 + self.state.step)  # dropout
        rate = self.config.learning_rate * schedule(self._fraction_done(), self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        result = self._compute(self.state.step)
        result.loss.backward()  # type: ignore[no-untyped-call]
        self._workers.all_reduce_gradients(self.model)
        norm = self._clip(self.model, self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss, tokens, *values = self._workers.all_reduce(
            [result.loss.item(), result.tokens, *result.metrics.values()]
        )
        elapsed = self._workers.broadcast(time.perf_counter() - started)
        self.state.step += 1
        self.state.seconds += elapsed
        rate_tokens = tokens / elapsed
        metrics = dict(zip(result.metrics, values, strict=True))
        self._log(kind="step", loss=loss, lr=rate, norm=norm.item(), tokens_per_s=rate_tokens, **metrics)
        self._recent.append(elapsed)
        speed = f"{len(self._recent) / sum(self._recent):.2f} steps/s"
        validation = f"  validation {self._losses[-1]:.4f}" if self._losses else ""
        return f"step {self.state.step}  loss {loss:.4f}{validation}  {speed}"

    def _run_validation(self) -> float:
        """Validate, and keep the checkpoint if it is the best so far.

        Returns the validation loss.
        """
        if not self._workers.is_main:
            return math.inf
        started = time.perf_counter()
        self.model.eval()
        # Its batches are of other shapes: compiling for them would take longer than they do.
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            scores = self._validate()
        self._log(kind="validation", seconds_taken=time.perf_counter() - started, **scores)
        name, loss = next(iter(scores.items()))
        self._losses.append(loss)
        better = loss < self.state.best
        if better:
            self.state.best = loss
            self._save_checkpoint(self.folder / "best", self.state)
            self._save()  # a run that is killed now must resume with the lowest loss so far
        self._reporter.line(
            f"step {self.state.step}: {name} {loss:.4f} (first {self._losses[0]:.4f}, "
            f"best {self.state.best:.4f})" + (f", saved as {self.folder / 'best'}" if better else "")
        )
        return loss

    def _save(self) -> None:
        if not self._workers.is_main:
            return
        partial = self.folder / "state.pt.partial"
        state = {"step": self.state.step, "seconds": self.state.seconds, "best": self.state.best}
        torch.save(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "state": state},
            partial,
        )
        partial.replace(self.folder / "state.pt")  # atomic: a kill leaves the old state or the new one

    def _fraction_done(self) -> float:
        """Fraction of the run that is over."""
        by_steps = self.state.step / self.config.steps if self.config.steps else 0.0
        by_time = self.state.seconds / (self.config.minutes * 60) if self.config.minutes else 0.0
        return max(by_steps, by_time)

    def _eta(self) -> str:
        left = self.state.seconds * (1 / self._fraction_done() - 1) if self._fraction_done() < 1 else 0.0
        return f"{int(left // 3600)}:{int(left % 3600 // 60):02d}:{int(left % 60):02d}"

    def _log(self, **entry: Any) -> None:
        if not self._workers.is_main:
            return
        line = {"step": self.state.step, "minutes": round(self.state.seconds / 60, 3), **entry}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def schedule(done: float, warmup: float) -> float:
    """Factor on the learning rate after a share `done` of the run: linear up,
    cosine down to zero.
    """
    if done < warmup:
        return max(done / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min((done - warmup) / (1 - warmup), 1.0)))


@contextmanager
def _set_on_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process;
    only the main thread can listen to it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log."""
    with (folder / "log.jsonl").open() as file:
        for line in file:
            yield json.loads(line)
