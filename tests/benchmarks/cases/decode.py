"""Decoding speed of sixteen streams with eight adapters: our server and engine, vLLM's server,
PEFT.
"""

from __future__ import annotations

from tests.benchmarks.context import NUM_ADAPTERS, BenchContext, descriptions
from tests.benchmarks.measure import Comparison, run_interleaved
from tests.benchmarks.peft_swap import PeftSwap
from tests.benchmarks.streams import (
    STREAMS,
    decode_throughput,
    load_adapter_in_vllm,
    stream_from_engine,
    stream_from_t2l,
    stream_from_vllm,
)


async def run(context: BenchContext) -> list[Comparison]:
    """Tokens per second of each system, measured in the same rounds."""
    tokens = 10 if context.quick else 32
    t2l, vllm, engine = await context.start_all()
    names = descriptions(NUM_ADAPTERS, "stream")
    for i, weights in enumerate(context.adapters):
        await load_adapter_in_vllm(vllm, f"a{i}", str(context.save_adapter_folder(f"a{i}", weights)))
    peft = PeftSwap(context)

    async def t2l_adapted(i: int) -> list[float]:
        return (await stream_from_t2l(t2l, i, tokens, names[i % NUM_ADAPTERS])).chunk_times

    async def vllm_adapted(i: int) -> list[float]:
        return await stream_from_vllm(vllm, i, tokens, f"a{i % NUM_ADAPTERS}")

    async def vllm_base(i: int) -> list[float]:
        return await stream_from_vllm(vllm, i, tokens, "base")

    async def engine_adapted(i: int) -> list[float]:
        return await stream_from_engine(
            engine, i, tokens, f"a{i % NUM_ADAPTERS}", context.adapters[i % NUM_ADAPTERS]
        )

    async def engine_base(i: int) -> list[float]:
        return await stream_from_engine(engine, i, tokens, "", None)

    for stream in (t2l_adapted, vllm_adapted, vllm_base, engine_adapted, engine_base):
        await decode_throughput(stream, NUM_ADAPTERS)  # warm-up: generates and loads the adapters
    rates = await run_interleaved(
        context.rounds,
        {
            "t2l": lambda _: decode_throughput(t2l_adapted),
            "vllm": lambda _: decode_throughput(vllm_adapted),
            "vllm base": lambda _: decode_throughput(vllm_base),
            "engine": lambda _: decode_throughput(engine_adapted),
            "engine base": lambda _: decode_throughput(engine_base),
            "peft": lambda _: peft.tokens_per_second(STREAMS, tokens),
        },
    )
    pairs = [
        (
            f"decode, {STREAMS} streams, {NUM_ADAPTERS} adapters: our server / vLLM's server",
            ">= 2.0",
            "t2l",
            "vllm",
        ),
        ("the same: our engine with adapters / base model", ">= 0.90", "engine", "engine base"),
        ("the same: vLLM's server with adapters / base model", "", "vllm", "vllm base"),
        ("the same: our server / transformers + PEFT", "", "t2l", "peft"),
        ("the same: our server / our engine without HTTP", ">= 0.97", "t2l", "engine"),
    ]
    return [Comparison(label, target, rates[a], rates[b], "tok/s") for label, target, a, b in pairs]
