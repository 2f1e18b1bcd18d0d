"""Training speed, against the speed of the step's matrix products alone."""

from __future__ import annotations

import random
import statistics

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from hypernet.data.tasks import Instance, Task
from hypernet.encoder import Encoder
from hypernet.frozen import FrozenBase
from hypernet.hardware import fastest_dtype
from hypernet.model_paths import base_model_folder
from hypernet.training.config import SftConfig
from hypernet.training.loop import StepResult
from hypernet.training.sft import SftRun, sft_data
from tests.benchmarks.context import BenchContext
from tests.benchmarks.measure import Comparison, elapsed_seconds

PRODUCT = (1408, 576, 1536)
"""Rows, inner size and columns of the timed product: the base model's widest layer on one batch."""
TASKS = 24


async def run(context: BenchContext) -> list[Comparison]:
    """Tokens per second of an SFT step, against those of its matrix products alone at the measured
    FLOP/s.
    """
    sft = start()
    with FlopCounterMode(display=False) as counter:
        step(sft, 0)
    flops = counter.get_total_flops()
    took, bound = list[float](), list[float]()
    tokens = 0
    for number in range(1, context.rounds + 1):
        rate = matmul_rate()
        result: list[StepResult] = []
        elapsed = elapsed_seconds(lambda number=number, result=result: result.append(step(sft, number)))
        tokens = result[0].tokens
        took.append(tokens / elapsed)
        bound.append(tokens / (flops / rate))
    return [
        Comparison(
            f"training, steps of {tokens} tokens / their matrix products alone", "", took, bound, "tokens/s"
        )
    ]


def shares() -> dict[str, float]:
    """Share of each operation in the time of an SFT step, for docs/performance.md."""
    sft = start()
    step(sft, 0)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step(sft, 1)
    times: dict[str, float] = {}
    for event in seen.key_averages():
        times[event.key] = times.get(event.key, 0.0) + event.self_cpu_time_total
    whole = sum(times.values())
    return {name: t / whole for name, t in sorted(times.items(), key=lambda item: -item[1])[:12]}


def start() -> SftRun:
    """A training run on tasks of single words, with the shipped base model."""
    config = SftConfig(steps=1, rows=11, row_tokens=128, row_examples=8, validation_share=0.01)
    folder = base_model_folder()
    base = FrozenBase(folder, config.lora_spec(folder), "cpu")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(200)]
    tasks = [
        Task(
            task=f"task {i}",
            descriptions=[f"Write word number {i}."],
            instances=[Instance(input=rng.choice(words), output=[rng.choice(words)]) for _ in range(60)],
        )
        for i in range(TASKS)
    ]
    return SftRun(config, sft_data(tasks, config, base), base, Encoder.load())


def step(sft: SftRun, number: int) -> StepResult:
    """Forward and backward pass. The optimiser's share is small."""
    result = sft.step(number)
    result.loss.backward()  # type: ignore[no-untyped-call]
    sft.model.zero_grad(set_to_none=True)
    return result


def matmul_rate() -> float:
    """FLOP/s of one large matrix product in the dtype of training."""
    rows, inner, columns = PRODUCT
    dtype = fastest_dtype("cpu")
    x, w = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    times = [elapsed_seconds(lambda: torch.nn.functional.linear(x, w)) for _ in range(60)]
    return 2 * rows * inner * columns / statistics.median(times)


if __name__ == "__main__":
    for name, share in shares().items():
        print(f"{share:6.1%}  {name}")
