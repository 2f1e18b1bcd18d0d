from pathlib import Path

import pytest
import torch

from hypernet.analysis import embedding_map as embedding_map_module
from hypernet.analysis.embedding_map import (
    Correlation,
    EmbeddingMap,
    Point,
    average_by_task,
    draw,
    embedding_map,
    family,
    mantel,
    similarity,
    tsne_layout,
)
from hypernet.analysis.errors import TooFewTasksError
from hypernet.data.tasks import Instance, Task
from hypernet.generator import Generator


def task(name: str, *descriptions: str, categories: tuple[str, ...] = ()) -> Task:
    instances = [Instance(input="a", output=["b"])]
    return Task(task=name, descriptions=list(descriptions), categories=list(categories), instances=instances)


def clusters(t: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Three noisy descriptions of each of t tasks."""
    torch.manual_seed(0)
    task_index = torch.arange(t).repeat_interleave(3)
    return torch.randn(t, 12)[task_index] + 0.1 * torch.randn(3 * t, 12), task_index


def test_similarities_are_averaged_over_a_tasks_descriptions() -> None:
    vectors, task_index = clusters()
    together = similarity(vectors)
    by_task = average_by_task(together, task_index)
    assert by_task.shape == (8, 8)
    expected = torch.stack([together[i, j] for i in range(3) for j in range(3, 6)]).mean()
    torch.testing.assert_close(by_task[0, 1], expected)


def test_a_shared_offset_does_not_change_similarities() -> None:
    vectors, _ = clusters()
    torch.testing.assert_close(similarity(vectors), similarity(vectors + 100), atol=1e-3, rtol=1e-3)


def test_chunks_and_half_precision_give_the_same_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clusters()
    around = vectors - vectors.mean(0)
    expected = torch.nn.functional.cosine_similarity(around[:, None], around, dim=-1)
    torch.testing.assert_close(similarity(vectors), expected)
    monkeypatch.setattr(embedding_map_module, "COLUMN_CHUNK", 5)
    torch.testing.assert_close(similarity(vectors), expected)
    torch.testing.assert_close(similarity(vectors.half()), expected, atol=2e-3, rtol=0)


def test_adapters_are_stored_in_fp16(tiny_generator: Generator) -> None:
    z = tiny_generator.embed([f"do {i}" for i in range(19)])  # more than one batch
    kept = embedding_map_module._adapters(tiny_generator, z)
    assert (kept.dtype, kept.shape) == (torch.float16, (19, tiny_generator.spec.num_parameters))
    torch.testing.assert_close(
        kept[17].float(), tiny_generator.generate_from_embeddings(z[17:18])[0].flatten(), atol=1e-3, rtol=1e-2
    )


def test_correlation_agrees_with_scipy_and_has_a_permutation_p_value() -> None:
    from scipy.stats import pearsonr, spearmanr

    vectors, task_index = clusters()
    a = average_by_task(similarity(vectors), task_index)
    b = average_by_task(similarity(vectors + 0.5 * torch.randn_like(vectors)), task_index)
    rows, columns = torch.triu_indices(8, 8, offset=1)
    found = mantel(a, b, 199, seed=0)
    assert found.pearson == pytest.approx(pearsonr(a[rows, columns], b[rows, columns]).statistic, abs=1e-5)
    assert found.spearman == pytest.approx(spearmanr(a[rows, columns], b[rows, columns]).statistic, abs=1e-5)
    assert found.pearson_p == found.spearman_p == 1 / 200  # no relabelling does as well
    torch.manual_seed(1)
    unrelated = average_by_task(similarity(torch.randn(24, 12)), task_index)
    assert mantel(a, unrelated, 199, seed=0).spearman_p > 0.05
    assert mantel(a, b, 199, seed=0) == found


def test_family_is_the_category_or_the_prefix_of_the_name() -> None:
    assert family(task("lol_1", "d", categories=("Question Answering",))) == "Question Answering"
    assert family(task("fv_antonym", "d")) == "function vectors"
    assert family(task("own_task", "d")) == "own"


def test_map_keeps_clusters_together() -> None:
    vectors, task_index = clusters()
    places = torch.tensor(tsne_layout(similarity(vectors), seed=0))
    assert places.tolist() == torch.tensor(tsne_layout(similarity(vectors), seed=0)).tolist()
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(dim=1)
    assert (task_index[nearest] == task_index).float().mean() > 0.8


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_figures_are_small_and_reproducible(tmp_path: Path, ending: str) -> None:
    points = tuple(
        Point(f"t{i}", f"family {i % 10}", (float(i), i / 2), (float(-i), i * 2.0)) for i in range(120)
    )
    found = EmbeddingMap(points, Correlation(0.5, 0.01, 0.4, 0.02, 40, 999), "abc", 0)
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    draw(found, first)
    draw(found, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 200_000
    if ending == "svg":
        text = first.read_text()
        assert "other" in text  # ten families, seven styles
        assert "Spearman 0.40 (p = 0.020)" in text


def test_map_is_drawn_for_a_hypernetwork(tiny_generator: Generator) -> None:
    tasks = [task(f"fv_{i}", f"do {i} things", f"make {i} of them") for i in range(5)]
    found = embedding_map(tiny_generator, tasks, permutations=19)
    assert [p.task for p in found.points] == [t.task for t in tasks for _ in range(2)]
    assert -1 <= found.correlation.spearman <= 1
    assert found.to_json()["hypernetwork"] == found.hypernetwork
    with pytest.raises(TooFewTasksError, match="at least four"):
        embedding_map(tiny_generator, tasks[:3])
