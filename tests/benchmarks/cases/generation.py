"""Generation speed: a batch, single descriptions, and the published procedure."""

from __future__ import annotations

from hypernet.encoder import Encoder
from tests.benchmarks.context import BenchContext, descriptions
from tests.benchmarks.measure import Comparison, elapsed_seconds, run_interleaved, single_thread
from tests.benchmarks.published import PublishedGenerator

BATCH = 64


async def run(context: BenchContext) -> list[Comparison]:
    """Adapters per second, including the embedding. Only the published procedure writes files."""
    count = 16 if context.quick else BATCH
    names, generator, published = (
        descriptions(count, "batch"),
        context.generator,
        PublishedGenerator(context.checkpoint, Encoder.load()),
    )
    some = names[: count // 4]

    def one_at_a_time() -> None:
        for name in some:
            generator.generate([name])

    def published_procedure() -> None:
        for n, name in enumerate(some):
            published.generate(name, context.folder / "published" / str(n))

    for work in (lambda: generator.generate(names), one_at_a_time, published_procedure):
        work()
    with single_thread():
        seen = await run_interleaved(
            context.rounds,
            {
                "batch": lambda _: count / elapsed_seconds(lambda: generator.generate(names)),
                "one": lambda _: len(some) / elapsed_seconds(one_at_a_time),
                "published": lambda _: len(some) / elapsed_seconds(published_procedure),
            },
        )
    what = f"adapters generated, batch of {count}"
    return [
        Comparison(f"{what} / published procedure", ">= 5", seen["batch"], seen["published"], "1/s"),
        Comparison(f"{what} / one at a time", "", seen["batch"], seen["one"], "1/s"),
    ]
