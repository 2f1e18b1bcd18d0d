"""Sixteen streams over eight adapters: ours over HTTP and without it, stock vLLM, PEFT."""

from __future__ import annotations

from tests.benchmarks.measure import Row, interleaved
from tests.benchmarks.peft_swap import PeftSwap
from tests.benchmarks.streams import STREAMS, load_on_stock, on_engine, on_ours, on_stock, together
from tests.benchmarks.world import ADAPTERS, World, descriptions


async def run(world: World) -> list[Row]:
    """Tokens per second, each against each in the same rounds."""
    tokens = 10 if world.quick else 32
    ours, stock, engine = await world.all_three()
    names = descriptions(ADAPTERS, "stream")
    for i, weights in enumerate(world.adapters):
        await load_on_stock(stock, f"a{i}", str(world.on_disk(f"a{i}", weights)))
    peft = PeftSwap(world)

    async def ours_adapted(i: int) -> list[float]:
        return (await on_ours(ours, i, tokens, names[i % ADAPTERS])).pieces

    async def stock_adapted(i: int) -> list[float]:
        return await on_stock(stock, i, tokens, f"a{i % ADAPTERS}")

    async def stock_base(i: int) -> list[float]:
        return await on_stock(stock, i, tokens, "base")

    async def engine_adapted(i: int) -> list[float]:
        return await on_engine(engine, i, tokens, f"a{i % ADAPTERS}", world.adapters[i % ADAPTERS])

    async def engine_base(i: int) -> list[float]:
        return await on_engine(engine, i, tokens, "", None)

    for stream in (ours_adapted, stock_adapted, stock_base, engine_adapted, engine_base):
        await together(stream, ADAPTERS)  # adapters made and loaded, first times over
    seen = await interleaved(
        world.rounds,
        {
            "ours": lambda _: together(ours_adapted),
            "stock": lambda _: together(stock_adapted),
            "stock base": lambda _: together(stock_base),
            "engine": lambda _: together(engine_adapted),
            "engine base": lambda _: together(engine_base),
            "peft": lambda _: peft.tokens_per_second(STREAMS, tokens),
        },
    )
    what = f"{STREAMS} streams over {ADAPTERS} adapters"
    return [
        Row(
            f"decode, {what}: ours / stock vLLM, both over HTTP", ">= 2.0", seen["ours"], seen["stock"], "tok/s"
        ),
        Row("the same: ours with adapters / base", ">= 0.90", seen["engine"], seen["engine base"], "tok/s"),
        Row("the same: stock with adapters / base", "", seen["stock"], seen["stock base"], "tok/s"),
        Row("the same: ours / transformers + PEFT", "", seen["ours"], seen["peft"], "tok/s"),
        Row("HTTP server / calling the engine", ">= 0.97", seen["ours"], seen["engine"], "tok/s"),
    ]
