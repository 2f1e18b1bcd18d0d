"""Do like descriptions give like adapters? A map of both by t-SNE, and the correlation behind the picture.

Both spaces are compared by the cosine of what is left after the mean is taken away:
generated adapters share most of their weights (the heads' biases), and raw cosines
would all be near one. The picture may mislead, as t-SNE does; the number is a
correlation of similarities between tasks with a permutation p-value (Mantel 1967).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hypernet.data.tasks import Task
from hypernet.generator import Generator

BATCH = 16
COLUMNS = 1 << 16
"""Numbers of each vector that are compared at a time, in fp32."""
PREFIXES = {"fv": "function vectors", "ii": "instruction induction", "lol": "no category"}
"""Families of tasks that state no category, by the first part of their names."""
# Okabe and Ito's palette, told apart by colour-blind readers, with a marker each for those who print in grey.
BENCHMARKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#E69F00", "P"),
    ("#000000", "X"),
)
OTHER = {"other": ("#999999", ".")}


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two similarity matrices over the same n tasks agree, above the diagonal.

    The p-values are one-sided: the share of relabellings of the tasks that agree at least as well.
    """

    pearson: float
    pearson_p: float
    spearman: float
    spearman_p: float
    tasks: int
    permutations: int


@dataclass(frozen=True, slots=True)
class Point:
    """One description: its task, the task's family, and where the two maps put it."""

    task: str
    family: str
    description: tuple[float, float]
    adapter: tuple[float, float]


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """What `draw` draws and the JSON file holds."""

    points: tuple[Point, ...]
    correlation: Correlation
    hypernetwork: str
    seed: int

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)


def embedding_map(
    generator: Generator, tasks: Sequence[Task], *, seed: int = 0, permutations: int = 999
) -> EmbeddingMap:
    """Embed the held-out descriptions of tasks, write an adapter for each, and compare.

    Args:
        generator: the hypernetwork with its encoder.
        tasks: at least four. Every description's adapter is held in memory at once, two bytes a number.
        seed: of t-SNE and the permutations.
        permutations: relabellings of the tasks.

    Raises:
        ValueError: fewer than four tasks.
    """
    if len(tasks) < 4:
        raise ValueError(f"a map needs at least four tasks, not {len(tasks)}")
    wordings = [(i, text) for i, task in enumerate(tasks) for text in task.held_out_paraphrases]
    owners = torch.tensor([i for i, _ in wordings])  # [n]
    z = generator.embed([text for _, text in wordings])  # [n, e]
    descriptions, weights = similarity(z), similarity(_adapters(generator, z))  # [n, n]
    places = zip(layout(descriptions, seed), layout(weights, seed), strict=True)
    return EmbeddingMap(
        points=tuple(
            Point(tasks[i].task, family(tasks[i]), d, a)
            for (i, _), (d, a) in zip(wordings, places, strict=True)
        ),
        correlation=mantel(
            between_tasks(descriptions, owners), between_tasks(weights, owners), permutations, seed
        ),
        hypernetwork=generator.fingerprint,
        seed=seed,
    )


def _adapters(generator: Generator, z: Tensor) -> Tensor:
    """Flat adapters on the CPU. [n, e] -> [n, p], fp16: finer than bf16, and their differences are small."""
    written = torch.empty(len(z), generator.spec.num_parameters, dtype=torch.float16)
    for start in range(0, len(z), BATCH):
        part = generator.generate_from_embeddings(z[start : start + BATCH])
        written[start : start + BATCH] = torch.stack([weights.flatten() for weights in part])
    return written


def family(task: Task) -> str:
    """What kind of task it is: its first category, else what its name begins with."""
    prefix = task.task.split("_")[0]
    return task.categories[0] if task.categories else PREFIXES.get(prefix, prefix)


def similarity(vectors: Tensor) -> Tensor:
    """Cosines of rows around their mean, some columns at a time: p may be large. [n, p] -> [n, n]."""
    products = torch.zeros(len(vectors), len(vectors), device=vectors.device)
    for start in range(0, vectors.shape[1], COLUMNS):
        part = vectors[:, start : start + COLUMNS].float()  # [n, columns]
        centred = part - part.mean(0)
        products += centred @ centred.T
    lengths = products.diagonal().clamp(min=1e-24).sqrt()
    return products / (lengths[:, None] * lengths)


def between_tasks(similarities: Tensor, owners: Tensor) -> Tensor:
    """Average over the descriptions of two tasks. [n, n], [n] -> [tasks, tasks]."""
    member = F.one_hot(owners).float()  # [n, tasks]
    counts = member.sum(0)
    return member.T @ similarities @ member / (counts[:, None] * counts)


def mantel(a: Tensor, b: Tensor, permutations: int, seed: int) -> Correlation:
    """Correlate two similarity matrices [t, t], and relabel the second's tasks to see what chance gives."""
    t = a.shape[0]
    rows, columns = torch.triu_indices(t, t, offset=1)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(t, generator=generator) for _ in range(permutations)]
    values: list[float] = []
    for left, right in ((a, b), (_ranked(a), _ranked(b))):
        x = _standard(left[rows, columns])
        observed = float(x @ _standard(right[rows, columns]))
        chance = [float(x @ _standard(right[order[rows], order[columns]])) for order in orders]
        values += [observed, (1 + sum(c >= observed for c in chance)) / (1 + permutations)]
    pearson, pearson_p, spearman, spearman_p = values
    return Correlation(pearson, pearson_p, spearman, spearman_p, t, permutations)


def _ranked(matrix: Tensor) -> Tensor:
    """A symmetric matrix with the ranks of its entries above the diagonal in their place. [t, t]."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1)
    ranks = torch.zeros_like(matrix)
    ranks[rows, columns] = matrix[rows, columns].argsort().argsort().float()
    return ranks + ranks.T


def _standard(values: Tensor) -> Tensor:
    """Mean 0 and norm 1, so that a product of two is their correlation."""
    return F.normalize((values - values.mean()).double(), dim=0)


def layout(similarities: Tensor, seed: int) -> list[tuple[float, float]]:
    """Places in the plane by t-SNE (van der Maaten & Hinton 2008) of cosine distances. n of (x, y)."""
    from sklearn.manifold import TSNE  # type: ignore[import-untyped]  # slow to import

    n = similarities.shape[0]
    squared = (2 - 2 * similarities).clamp(min=0).fill_diagonal_(0)
    # Started from the two widest axes, not from noise, so that the map's broad shape means something.
    values, vectors = torch.linalg.eigh(similarities.double())
    axes = vectors[:, -2:] * values[-2:].clamp(min=0).sqrt()  # [n, 2]
    start = axes / axes.std(0).clamp(min=1e-12) * 1e-4
    tsne = TSNE(
        metric="precomputed", init=start.float().numpy(), perplexity=min(30.0, (n - 1) / 3), random_state=seed
    )
    placed = tsne.fit_transform(squared.sqrt().numpy())
    return [(round(float(x), 3), round(float(y), 3)) for x, y in placed]


def draw(found: EmbeddingMap, path: Path) -> None:
    """Write both maps side by side, as SVG or PNG by the path's ending. The same map gives the same bytes."""
    import matplotlib  # slow to import
    from matplotlib.figure import Figure

    common = [name for name, _ in Counter(p.family for p in found.points).most_common()]
    styles = dict(zip(common, BENCHMARKS, strict=False))
    if len(common) > len(BENCHMARKS):
        styles |= OTHER
    with matplotlib.rc_context({"svg.hashsalt": "t2l", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.set(title="description embeddings", xticks=[], yticks=[])
        right.set(title="generated adapters", xticks=[], yticks=[])
        for name, (colour, marker) in styles.items():
            chosen = [p for p in found.points if p.family == name or (name in OTHER and p.family not in styles)]
            look = {"c": colour, "marker": marker, "s": 18, "linewidths": 0}
            left.scatter(*zip(*(p.description for p in chosen), strict=True), label=name, **look)
            right.scatter(*zip(*(p.adapter for p in chosen), strict=True), **look)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        c = found.correlation
        figure.suptitle(
            f"likeness of descriptions and of adapters over {c.tasks} tasks: "
            f"Spearman {c.spearman:.2f} (p = {c.spearman_p:.3f}), "
            f"Pearson {c.pearson:.2f} (p = {c.pearson_p:.3f})"
        )
        silent = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=120, metadata=silent)
