from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from embedpress.analyze import project as project_module
from embedpress.analyze.layout import lay_out
from embedpress.analyze.names import PALETTE, densest, spread_colors
from embedpress.analyze.project import draw_map, nearest_others, neighbors, project
from embedpress.errors import InputError, MissingDependencyError, UsageError


def clouds(n=600, k=5, dim=20, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    x = rng.normal(size=(k, dim))[labels] * 5 + rng.normal(size=(n, dim))
    return np.asarray(x, np.float32), labels


@pytest.fixture(autouse=True)
def no_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)


def test_pca_is_the_two_directions_of_largest_variance():
    x, _ = clouds()
    got = project(x, method="pca", metric="l2")
    assert got.method == "PCA"
    assert got.points.dtype == np.float32
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    np.testing.assert_allclose(got.points.var(axis=0, ddof=1), values[:2], rtol=1e-4)
    np.testing.assert_allclose(np.corrcoef(got.points.T)[0, 1], 0, atol=1e-5)
    np.testing.assert_array_equal(got.points, project(x, method="pca", metric="l2").points)


def test_pca_signs_do_not_depend_on_the_order_of_rows():
    x, _ = clouds()
    turned = project(x[::-1], method="pca", metric="l2").points[::-1]
    np.testing.assert_allclose(turned, project(x, method="pca", metric="l2").points, atol=1e-3)


def test_the_graph_keeps_clouds_together():
    x, labels = clouds()
    got = project(x, seed=1)
    assert got.method == "neighbour graph"
    rows, _ = nearest_others(got.points, 10, metric="l2")
    assert (labels[rows] == labels[:, None]).mean() > 0.99
    np.testing.assert_array_equal(got.points, project(x, seed=1).points)
    assert not np.array_equal(got.points, project(x, seed=2).points)


def test_rows_beyond_the_sample_are_put_among_their_neighbours(monkeypatch):
    x, labels = clouds()
    monkeypatch.setattr(project_module, "LAYOUT_ROWS", 300)
    points = project(x, method="graph").points
    assert np.isfinite(points).all()
    rows, _ = nearest_others(points, 10, metric="l2")
    assert (labels[rows] == labels[:, None]).mean() > 0.98


@pytest.mark.parametrize("method", ["pca", "graph", "auto"])
@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (3, 1), (40, 1), (5, 2)])
def test_tiny_data(method, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    points = project(x, method=method, metric="l2").points
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def test_equal_rows_have_a_layout():
    points = project(np.ones((50, 3), np.float32), method="graph").points
    assert np.isfinite(points).all()


def test_lay_out_pulls_neighbours_and_leaves_the_lonely():
    start = np.array([[0, 0], [4, 0], [9, 9], [9, 1]], np.float32)
    near = np.array([[1], [0], [3], [2]])
    got = lay_out(start, near, np.ones((4, 1), np.float32), seed=0)
    gap = np.linalg.norm(got[:, None] - got[None], axis=2)
    assert gap[0, 1] < gap[0, 2]
    assert gap[2, 3] < gap[1, 2]
    alone = lay_out(start, np.full((4, 2), -1), np.zeros((4, 2), np.float32), seed=0)
    np.testing.assert_array_equal(alone, start)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_nearest_others_are_those_of_brute_force(metric):
    x, _ = clouds(n=120)
    rows, distances = nearest_others(x, 6, metric=metric)
    a = x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x
    away = {
        "cosine": 1 - a @ a.T,
        "ip": -(a @ a.T),
        "l2": np.linalg.norm(a[:, None] - a[None], axis=2),
    }[metric]
    np.fill_diagonal(away, np.inf)
    wanted = np.sort(away, axis=1)[:, :6]
    np.testing.assert_allclose(distances, wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.take_along_axis(away, rows, axis=1), wanted, rtol=1e-3, atol=1e-3)


def test_nobody_is_its_own_neighbour_even_among_copies():
    x = np.repeat(np.eye(4, dtype=np.float32), 6, axis=0)
    rows, distances = nearest_others(x, 5, metric="cosine")
    assert not (rows == np.arange(24)[:, None]).any()
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    many, _ = nearest_others(x, 100, metric="l2")
    assert many.shape == (24, 23)
    assert nearest_others(x[:1], 3, metric="l2")[0].shape == (1, 0)


def test_many_rows_are_searched_approximately(monkeypatch):
    x, _ = clouds(n=2000, k=12)
    exact, _ = nearest_others(x, 8, metric="cosine")
    monkeypatch.setattr(project_module, "EXACT_ROWS", 500)
    rows, distances = neighbors(x, 8, metric="cosine")
    hits = [len(set(a) & set(b)) for a, b in zip(rows, exact.tolist(), strict=True)]
    assert np.mean(hits) > 7
    assert all(line == sorted(line) for line in distances)
    assert not any(row in line for row, line in enumerate(rows))


def test_umap_is_used_where_it_is_installed(monkeypatch):
    x, _ = clouds(n=50)

    class Fake:
        def __init__(self, *, n_components, random_state):
            assert (n_components, random_state) == (2, 9)

        def fit_transform(self, rows):
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
            return rows[:, :2].astype(np.float64)

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Fake))
    got = project(x, seed=9)
    assert (got.method, got.points.dtype) == ("UMAP", np.float32)


def test_bad_requests():
    x, _ = clouds(n=30)
    with pytest.raises(MissingDependencyError, match="umap-learn"):
        project(x, method="umap")
    with pytest.raises(UsageError, match="tsne"):
        project(x, method="tsne")
    with pytest.raises(UsageError, match="k is 0"):
        nearest_others(x, 0, metric="l2")
    x[3] = 0
    with pytest.raises(InputError, match="row 3"):
        project(x)


def read_png(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)


def near_color(pixels: np.ndarray, color: str) -> int:
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels.astype(int) - wanted).max(axis=1) < 12).sum())


@pytest.mark.parametrize("crowded", [False, True])
def test_the_picture_has_the_colours_of_the_groups(tmp_path, monkeypatch, crowded):
    pytest.importorskip("matplotlib")
    from embedpress.analyze import picture

    if crowded:
        monkeypatch.setattr(picture, "CROWDED", 100)
    x, labels = clouds(n=900, k=3)
    points = project(x, method="pca").points
    draw_map(points, labels, tmp_path / "map.png", title="Three $ clouds $")
    pixels = read_png(tmp_path / "map.png")
    assert (pixels == 255).all(axis=1).mean() > 0.5
    for color in PALETTE[:3]:
        assert near_color(pixels, color) > 80
    assert near_color(pixels, PALETTE[3]) == 0
    draw_map(points, labels, tmp_path / "again.png", title="Three $ clouds $")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "map.png").read_bytes()


@pytest.mark.filterwarnings("error")
def test_awkward_groups_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 2)).astype(np.float32)
    names = [f"a rather long name of a group, number {i % 70} $x_{i}$" for i in range(400)]
    draw_map(points, names, tmp_path / "many.png", title="")
    draw_map(np.zeros((3, 2), np.float32), ["<b>", "", "\n"], tmp_path / "one.png", title="x")
    assert (tmp_path / "one.png").stat().st_size > 1000
    with pytest.raises(InputError, match="2 groups for 3"):
        draw_map(np.zeros((3, 2), np.float32), ["a", "b"], tmp_path / "no.png", title="x")
    with pytest.raises(UsageError, match="most_groups"):
        draw_map(points, names, tmp_path / "no.png", title="x", most_groups=41)
    assert not (tmp_path / "no.png").exists()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="train"):
        draw_map(np.zeros((3, 2), np.float32), ["a", "b", "c"], tmp_path / "no.png", title="x")


def test_names_do_not_cover_each_other():
    pytest.importorskip("matplotlib")
    from embedpress.analyze.names import name_groups
    from embedpress.evaluate.figure import new_figure

    figure = new_figure(6, 5)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    centres = [(0.5, 0.5)] * 8 + [(1.0, 1.0)]
    name_groups(figure, axes, [f"group {i}" for i in range(9)], centres, list(PALETTE[:9]))
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == 9
    frame = axes.get_window_extent(renderer)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert frame.x0 - 1 <= box.x0 <= box.x1 <= frame.x1 + 1
        assert frame.y0 - 1 <= box.y0 <= box.y1 <= frame.y1 + 1


def test_a_colour_that_serves_twice_serves_far_apart():
    centres = [(float(i), 0.0) for i in range(12)] + [(11.2, 0.0), (0.2, 0.0)]
    colors = spread_colors(centres, np.array([12.0, 1.0]))
    assert colors[:12] == list(PALETTE)
    assert colors[12] == PALETTE[0]
    assert colors[13] == PALETTE[11] or colors[13] == PALETTE[10]


def test_a_name_goes_where_most_of_the_group_is():
    rng = np.random.default_rng(0)
    thick = rng.normal((5, 5), 0.2, size=(300, 2))
    thin = rng.uniform(-20, 20, size=(200, 2))
    x, y = densest(np.concatenate([thick, thin]).astype(np.float32))
    assert abs(x - 5) < 1
    assert abs(y - 5) < 1
    assert densest(np.array([[1, 2], [1, 4]], np.float32)) == (1.0, 3.0)
