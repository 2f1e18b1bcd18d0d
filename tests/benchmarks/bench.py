"""`make bench`: ratios of two things measured side by side in one run, on the embedded default.

Medians of several rounds. Absolute numbers depend on the machine and on whatever
else it does; the ratios are what to compare.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import torch

from hypernet.embedded import BASE_MODEL_NAME
from hypernet.generator import Generator
from hypernet.lora import LoraWeights
from hypernet.models import DEFAULT_CHECKPOINT, base_model_folder
from server.engine.config import EngineConfig
from server.engine.interface import Sampling
from server.engine.vllm import VllmEngine

STREAMS, ADAPTERS, TOKENS, ROUNDS = 16, 8, 48, 3
DESCRIPTIONS = [f"Answer with the word that comes {n} places later in the alphabet." for n in range(64)]
OUT = Path("runs/bench.json")


def main() -> None:
    """Run every benchmark, print the table, and leave the numbers in runs/bench.json."""
    generator = Generator.load(DEFAULT_CHECKPOINT)
    numbers = generation(generator)
    # B next to 0: the same work, but the streams say what the base model says and so are as long.
    weights = [
        LoraWeights(w.spec, w.a, {name: torch.full_like(b, 1e-6) for name, b in w.b.items()})
        for w in generator.generate(DESCRIPTIONS[:ADAPTERS])
    ]
    for kernel in ("1", "0"):
        os.environ["T2L_CPU_LORA_KERNEL"] = kernel
        numbers |= asyncio.run(decoding(weights, "ours" if kernel == "1" else "stock"))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(numbers, indent=2) + "\n")
    print(table(numbers))


def generation(generator: Generator) -> dict[str, float]:
    """Adapters per second, 64 descriptions in one batch and one at a time, embedding included."""
    generator.generate(DESCRIPTIONS[:2])  # warm
    batched = median(lambda: generator.generate(DESCRIPTIONS))
    single = median(lambda: [generator.generate([text]) for text in DESCRIPTIONS])
    count = len(DESCRIPTIONS)
    return {"adapters/s, batched": count / batched, "adapters/s, one at a time": count / single}


async def decoding(weights: list[LoraWeights], kernel: str) -> dict[str, float]:
    """Tokens per second of 16 streams, and milliseconds to the first token, base and adapted."""
    async with running(weights[0]) as engine:
        prompt = engine.tokenize([{"role": "user", "content": "Tell me about the sea."}], None)
        await load(engine, prompt, weights, 4)  # warm
        base, adapted, cold, first = [], [], [], []
        for number in range(ROUNDS):
            base.append(await load(engine, prompt, [None], TOKENS))
            adapted.append(await load(engine, prompt, weights, TOKENS))
            first.append(await first_token(engine, prompt, None, "base"))
            await engine.forget("new")
            cold.append(await first_token(engine, prompt, weights[number], "new"))
    return {
        f"tok/s base, {kernel}": statistics.median(base),
        f"tok/s LoRA, {kernel}": statistics.median(adapted),
        f"first token base ms, {kernel}": 1e3 * statistics.median(first),
        f"first token, adapter new to the engine ms, {kernel}": 1e3 * statistics.median(cold),
    }


@asynccontextmanager
async def running(weights: LoraWeights) -> AsyncIterator[VllmEngine]:
    """An engine with one slot more than there are adapters."""
    folder = str(base_model_folder())
    config = EngineConfig(model=folder, model_name=BASE_MODEL_NAME, lora=weights.spec, max_loras=ADAPTERS + 1)
    engine = VllmEngine(config)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def load(
    engine: VllmEngine, prompt: list[int], weights: list[LoraWeights] | list[None], tokens: int
) -> float:
    """Tokens per second of all streams together; stream i uses adapter i modulo their number."""

    async def stream(i: int) -> int:
        chosen = weights[i % len(weights)]
        sampling = Sampling(tokens, temperature=1.0, seed=i)
        if chosen is None:
            return await drain(engine, [*prompt, 100 + i], sampling, None)
        async with engine.lease(f"a{i % len(weights)}", chosen) as lease:
            return await drain(engine, [*prompt, 100 + i], sampling, lease)

    started = time.perf_counter()
    made = sum(await asyncio.gather(*(stream(i) for i in range(STREAMS))))
    return made / (time.perf_counter() - started)


async def drain(engine: VllmEngine, prompt: list[int], sampling: Sampling, lease: object) -> int:
    """Run one stream to its end; tokens made."""
    made = 0
    async for delta in engine.generate(prompt, sampling, lease, "bench"):  # type: ignore[arg-type]
        made = delta.completion_tokens
    return made


async def first_token(engine: VllmEngine, prompt: list[int], weights: LoraWeights | None, name: str) -> float:
    """Seconds until a lone request has its first token, registration included."""
    started = time.perf_counter()
    if weights is None:
        await drain(engine, prompt, Sampling(1), None)
    else:
        async with engine.lease(name, weights) as lease:
            await drain(engine, prompt, Sampling(1), lease)
    return time.perf_counter() - started


def median(work: Callable[[], object]) -> float:
    """Median seconds of ROUNDS runs."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def table(n: dict[str, float]) -> str:
    """The ratios."""
    new = "first token, adapter new to the engine ms"
    rows = [
        (
            "decode, 16 streams over 8 adapters: ours / stock operator",
            n["tok/s LoRA, ours"],
            n["tok/s LoRA, stock"],
        ),
        ("the same, ours: with adapters / base only", n["tok/s LoRA, ours"], n["tok/s base, ours"]),
        ("the same, stock: with adapters / base only", n["tok/s LoRA, stock"], n["tok/s base, stock"]),
        ("first token ms: adapter new to the engine / base", n[f"{new}, ours"], n["first token base ms, ours"]),
        ("adapters/s: 64 in a batch / one at a time", n["adapters/s, batched"], n["adapters/s, one at a time"]),
    ]
    lines = [
        f"{torch.get_num_threads()} threads, medians of {ROUNDS} rounds",
        "",
        "| measure | a | b | a / b |",
        "|---|---|---|---|",
        *(f"| {what} | {a:.1f} | {b:.1f} | {a / b:.2f} |" for what, a, b in rows),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
