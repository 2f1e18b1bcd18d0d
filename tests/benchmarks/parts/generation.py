"""Adapters per second: in a batch, one at a time, and one at a time as published."""

from __future__ import annotations

from tests.benchmarks.measure import Row, interleaved, one_thread, seconds
from tests.benchmarks.published import Published
from tests.benchmarks.world import World, descriptions

BATCH = 64


async def run(world: World) -> list[Row]:
    """Embedding included everywhere; files only in the published way, which makes nothing else."""
    count = 16 if world.quick else BATCH
    names, generator, peer = descriptions(count, "batch"), world.generator, Published(world.checkpoint)
    some = names[: count // 4]

    def one_at_a_time() -> None:
        for name in some:
            generator.generate([name])

    def as_published() -> None:
        for n, name in enumerate(some):
            peer.make(name, world.folder / "published" / str(n))

    for work in (lambda: generator.generate(names), one_at_a_time, as_published):
        work()
    with one_thread():
        seen = await interleaved(
            world.rounds,
            {
                "batch": lambda _: count / seconds(lambda: generator.generate(names)),
                "one": lambda _: len(some) / seconds(one_at_a_time),
                "published": lambda _: len(some) / seconds(as_published),
            },
        )
    what = f"adapters made, {count} in a batch"
    return [
        Row(f"{what} / one at a time as published", ">= 5", seen["batch"], seen["published"], "1/s"),
        Row(f"{what} / our own one at a time", "", seen["batch"], seen["one"], "1/s"),
    ]
