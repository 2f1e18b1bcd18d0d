"""The shapes of a 7B base model with random weights: generating and loading adapters against
copying bytes.

Runs on a GPU if there is one. On a CPU it shows that the code runs, and its cost there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hypernet.base_model import lora_spec
from hypernet.config import HypernetConfig, LoraSpec
from hypernet.hardware import fastest_dtype
from hypernet.inference.network import InferenceHypernet
from hypernet.lora import LoraWeights
from hypernet.model import Hypernet
from server.engine.patches.stacked_slots import SlotLocation, StackedAdapter, StackedSlots
from tests.benchmarks.context import BenchContext
from tests.benchmarks.measure import Comparison, elapsed_seconds, run_interleaved, single_thread

MISTRAL_7B = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
EMBEDDING = 1024
"""Embedding size of gte-large-en-v1.5."""
SLOTS = 8


async def run(context: BenchContext) -> list[Comparison]:
    """Milliseconds of each, against a copy of as many bytes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec = lora_spec(MISTRAL_7B, rank=8, alpha=16)
    with single_thread():
        return [*await generation(context, spec, device), *await loading(context, spec, device)]


async def generation(context: BenchContext, spec: LoraSpec, device: str) -> list[Comparison]:
    """One pass reads the network's weights once and stores n adapters in fp32."""
    dtype = fastest_dtype(device)
    config = HypernetConfig(lora=spec, variant="L", embedding_size=EMBEDDING)
    network = Hypernet(config).to(device)
    weights = sum(p.numel() * (dtype.itemsize if "heads" in n else 4) for n, p in network.named_parameters())
    inference = InferenceHypernet(network, dtype)
    rows = []
    for count in (1, 8, 64) if device == "cuda" else (1, 8):
        embeddings = torch.randn(count, EMBEDDING, device=device)
        nbytes = weights + 4 * count * spec.num_parameters
        seen = await run_interleaved(
            context.rounds,
            {
                "pass": timed(device, lambda embeddings=embeddings: inference(embeddings)),
                "bytes": timed(device, copy_bytes(nbytes // 2, device)),  # a copy reads and writes
            },
        )
        what = f"7B shapes on {device}: {count} adapter{'s' * (count > 1)} generated / copying as many bytes"
        rows.append(Comparison(what, "", seen["pass"], seen["bytes"], "ms"))
    return rows


async def loading(context: BenchContext, spec: LoraSpec, device: str) -> list[Comparison]:
    """Load an adapter into its slots: two strided copies per module,
    against one copy of all bytes.
    """
    like = {"dtype": torch.bfloat16, "device": device}
    adapter = LoraWeights.unflatten(spec, torch.randn(spec.num_parameters).to(**like))
    locations = {m.name: SlotLocation(m.name, 0) for m in spec.modules}
    stacks = {
        locations[m.name]: StackedSlots(
            torch.zeros(spec.num_layers, SLOTS, 1, spec.rank, m.in_features, **like),
            torch.zeros(spec.num_layers, SLOTS, 1, m.out_features, spec.rank, **like),
        )
        for m in spec.modules
    }
    stacked = StackedAdapter(adapter, locations)
    seen = await run_interleaved(
        context.rounds,
        {
            "fill": timed(device, lambda: stacked.fill(stacks, 3)),
            "copy": timed(device, copy_bytes(2 * spec.num_parameters, device)),
        },
    )
    what = f"7B shapes on {device}: an adapter loaded into its slots / copying as many bytes"
    return [Comparison(what, "", seen["fill"], seen["copy"], "ms")]


def copy_bytes(nbytes: int, device: str) -> Callable[[], Tensor]:
    """A function that copies a number of bytes once."""
    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def timed(device: str, work: Callable[[], object], times: int = 5) -> Callable[[int], float]:
    """A measurement: milliseconds of one call, the minimum of several."""

    def once() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    def measure(_: int) -> float:
        once()
        return 1e3 * min(elapsed_seconds(once) for _ in range(times))

    return measure
