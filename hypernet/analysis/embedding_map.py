"""Do similar descriptions give similar adapters? Both spaces by t-SNE, and their correlation.

Similarity is the cosine after the mean is subtracted. Generated adapters share most of their
weights (the heads' biases), so raw cosines would all be near one. A t-SNE picture can mislead. The
number to trust is the correlation of the similarities between tasks, with a permutation p-value
(Mantel 1967).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hypernet.analysis.errors import TooFewTasksError
from hypernet.data.tasks import Task
from hypernet.generator import Generator

BATCH_SIZE = 16
COLUMN_CHUNK = 1 << 16
"""Columns that are multiplied at a time, in fp32."""
FAMILY_PREFIXES = {"fv": "function vectors", "ii": "instruction induction", "lol": "no category"}
"""First part of a task's name -> its family, for tasks without a category."""
# Okabe and Ito's palette, which colour-blind readers can tell apart. Markers serve prints in grey.
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
    """Correlation of two similarity matrices over the same tasks, above the diagonal.

    A p-value is one-sided: the share of task permutations with at least this correlation.
    """

    pearson: float
    pearson_p: float
    spearman: float
    spearman_p: float
    tasks: int
    permutations: int


@dataclass(frozen=True, slots=True)
class Point:
    """One description: its task, the task's family, and its place in both maps."""

    task: str
    family: str
    description: tuple[float, float]
    adapter: tuple[float, float]


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """Content of the figure and of the JSON file."""

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
    """Embed the held-out descriptions of tasks, generate an adapter from each, and compare both
    spaces.

    Args:
        generator: the hypernetwork with its encoder.
        tasks: at least four. All adapters are in memory at once, with two bytes per weight.
        seed: of t-SNE and the permutations.
        permutations: number of task permutations.

    Raises:
        TooFewTasksError: fewer than four tasks.
    """
    if len(tasks) < 4:
        raise TooFewTasksError(f"a map needs at least four tasks, and there are {len(tasks)}")
    texts = [(i, text) for i, task in enumerate(tasks) for text in task.held_out_paraphrases]
    task_index = torch.tensor([i for i, _ in texts])  # [n]
    z = generator.embed([text for _, text in texts])  # [n, e]
    descriptions, weights = similarity(z), similarity(_adapters(generator, z))  # [n, n]
    places = zip(tsne_layout(descriptions, seed), tsne_layout(weights, seed), strict=True)
    return EmbeddingMap(
        points=tuple(
            Point(tasks[i].task, family(tasks[i]), d, a) for (i, _), (d, a) in zip(texts, places, strict=True)
        ),
        correlation=mantel(
            average_by_task(descriptions, task_index), average_by_task(weights, task_index), permutations, seed
        ),
        hypernetwork=generator.fingerprint,
        seed=seed,
    )


def _adapters(generator: Generator, z: Tensor) -> Tensor:
    """Flat adapters on the CPU, [n, e] -> [n, p], in fp16.
    bf16 is too coarse for their small differences.
    """
    flat = torch.empty(len(z), generator.spec.num_parameters, dtype=torch.float16)
    for start in range(0, len(z), BATCH_SIZE):
        part = generator.generate_from_embeddings(z[start : start + BATCH_SIZE])
        flat[start : start + BATCH_SIZE] = torch.stack([weights.flatten() for weights in part])
    return flat


def family(task: Task) -> str:
    """Family of a task: its first category, else the first part of its name."""
    prefix = task.task.split("_")[0]
    return task.categories[0] if task.categories else FAMILY_PREFIXES.get(prefix, prefix)


def similarity(vectors: Tensor) -> Tensor:
    """Cosines of the rows after their mean is subtracted. [n, p] -> [n, n]. p may be large."""
    products = torch.zeros(len(vectors), len(vectors), device=vectors.device)
    for start in range(0, vectors.shape[1], COLUMN_CHUNK):
        part = vectors[:, start : start + COLUMN_CHUNK].float()  # [n, columns]
        centred = part - part.mean(0)
        products += centred @ centred.T
    lengths = products.diagonal().clamp(min=1e-24).sqrt()
    return products / (lengths[:, None] * lengths)


def average_by_task(similarities: Tensor, task_index: Tensor) -> Tensor:
    """Average over the descriptions of two tasks. [n, n], [n] -> [tasks, tasks]."""
    member = F.one_hot(task_index).float()  # [n, tasks]
    counts = member.sum(0)
    return member.T @ similarities @ member / (counts[:, None] * counts)


def mantel(a: Tensor, b: Tensor, permutations: int, seed: int) -> Correlation:
    """Mantel test of two similarity matrices [t, t]: the tasks of the second are permuted."""
    t = a.shape[0]
    rows, columns = torch.triu_indices(t, t, offset=1)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(t, generator=generator) for _ in range(permutations)]
    values: list[float] = []
    for left, right in ((a, b), (_rank_matrix(a), _rank_matrix(b))):
        x = _standardise(left[rows, columns])
        observed = float(x @ _standardise(right[rows, columns]))
        chance = [float(x @ _standardise(right[order[rows], order[columns]])) for order in orders]
        values += [observed, (1 + sum(c >= observed for c in chance)) / (1 + permutations)]
    pearson, pearson_p, spearman, spearman_p = values
    return Correlation(pearson, pearson_p, spearman, spearman_p, t, permutations)


def _rank_matrix(matrix: Tensor) -> Tensor:
    """A symmetric matrix with its entries off the diagonal replaced by their ranks. [t, t]."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1)
    ranks = torch.zeros_like(matrix)
    ranks[rows, columns] = matrix[rows, columns].argsort().argsort().float()
    return ranks + ranks.T


def _standardise(values: Tensor) -> Tensor:
    """Mean 0 and norm 1: the inner product of two such vectors is their correlation."""
    return F.normalize((values - values.mean()).double(), dim=0)


def tsne_layout(similarities: Tensor, seed: int) -> list[tuple[float, float]]:
    """t-SNE of cosine distances (van der Maaten & Hinton 2008). [n, n] -> n of (x, y)."""
    from sklearn.manifold import TSNE  # type: ignore[import-untyped]  # slow to import

    n = similarities.shape[0]
    squared = (2 - 2 * similarities).clamp(min=0).fill_diagonal_(0)
    # Initialised with the two principal axes, not with noise: then the broad shape of the map is
    # meaningful.
    values, vectors = torch.linalg.eigh(similarities.double())
    axes = vectors[:, -2:] * values[-2:].clamp(min=0).sqrt()  # [n, 2]
    start = axes / axes.std(0).clamp(min=1e-12) * 1e-4
    tsne = TSNE(
        metric="precomputed", init=start.float().numpy(), perplexity=min(30.0, (n - 1) / 3), random_state=seed
    )
    placed = tsne.fit_transform(squared.sqrt().numpy())
    return [(round(float(x), 3), round(float(y), 3)) for x, y in placed]


def draw(found: EmbeddingMap, path: Path) -> None:
    """Write both maps side by side as SVG or PNG, by the path's suffix.

    The same map gives the same bytes.
    """
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
            f"similarity of descriptions and of adapters over {c.tasks} tasks: "
            f"Spearman {c.spearman:.2f} (p = {c.spearman_p:.3f}), "
            f"Pearson {c.pearson:.2f} (p = {c.pearson_p:.3f})"
        )
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=120, metadata=metadata)
