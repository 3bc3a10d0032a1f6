"""A picture of the latent space: two dimensions, neighbours, and the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import MissingDependencyError, UsageError
from embedpress.evaluate.figure import INK, new_figure, plain, to_png
from embedpress.threads import faiss_threads
from embedpress.vectors import check_vectors, write_atomic

Floats = NDArray[np.float32]
# Okabe and Ito's colours and a second, lighter round of them, all apart for colour-blind eyes.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#B8A800",
    "#004D7A", "#8F5F00", "#00543D", "#8C3A00", "#7B3F66",
)  # fmt: skip
OTHERS = "#9aa4ae"
CROWDED = 30_000
"""Points above which single ones are drawn faint, so that their density shows."""


@dataclass(frozen=True)
class Projection:
    """Points of shape (n, 2), float32, and the method that placed them."""

    points: Floats
    method: str


def project(x: Any, *, method: str = "auto", seed: int = 0) -> Projection:
    """Lay vectors out in the plane.

    Parameters
    ----------
    x : array-like of shape (n, d)
    method : {"auto", "pca", "umap"}
        "auto" is UMAP where the package umap-learn is installed, else PCA.
    seed : int

    Returns
    -------
    Projection

    Raises
    ------
    MissingDependencyError
        "umap" without umap-learn.

    Notes
    -----
    UMAP: McInnes et al., "UMAP: Uniform Manifold Approximation and Projection" (2018).
    """
    rows = check_vectors(np.asarray(x), what="vectors")
    if method not in ("auto", "pca", "umap"):
        raise UsageError(f"method={method!r} must be auto, pca or umap")
    if method != "pca":
        try:
            from umap import UMAP
        except ImportError as error:
            if method == "umap":
                raise MissingDependencyError(
                    "the map by UMAP needs umap-learn: pip install umap-learn"
                ) from error
        else:
            laid_out = UMAP(n_components=2, metric="cosine", random_state=seed).fit_transform(rows)
            return Projection(np.asarray(laid_out, np.float32), "UMAP")
    return Projection(_first_two_axes(rows), "PCA")


def _first_two_axes(x: Floats) -> Floats:
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2]
    # An eigenvector's sign is anybody's: its largest entry is made positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    points = centred @ axes
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    return points.astype(np.float32)


def neighbors(
    x: Any, k: int, *, metric: str, num_threads: int | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """Rows and distances of the nearest other rows, as map viewers read them.

    Parameters
    ----------
    x : array-like of shape (n, d)
    k : int
        Neighbours a row, fewer where there are not as many.
    metric : {"cosine", "ip", "l2"}
        Distances are one minus the inner product, or squared.
    num_threads : int, optional

    Returns
    -------
    rows : list of list of int
    distances : list of list of float
    """
    import faiss

    vectors = check_vectors(np.asarray(x), what="vectors")
    if metric == "cosine":
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(lengths, 1e-12)
    wanted = min(k + 1, len(vectors))
    with faiss_threads(num_threads):
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        scores, found = faiss.knn(vectors, vectors, wanted, metric=kind)
    away = scores if metric == "l2" else 1 - scores
    rows, distances = [], []
    for row, (line, far) in enumerate(zip(found, away, strict=True)):
        others = line != row
        rows.append(line[others][: wanted - 1].tolist())
        distances.append(far[others][: wanted - 1].tolist())
    return rows, distances


def draw_map(
    points: Floats, groups: Sequence[str], path: str | Path, *, title: str, most_groups: int = 12
) -> None:
    """Draw points coloured by group, each group named where it is densest.

    Parameters
    ----------
    points : ndarray of shape (n, 2), float32
    groups : sequence of str
        The largest `most_groups` get a colour and a name, the others are grey.
    path : str or Path
        The PNG to write.
    title : str
    most_groups : int

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    from matplotlib import patheffects

    names, numbers, sizes = np.unique(
        np.asarray(groups, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    shown = np.argsort(-sizes, kind="stable")[: min(most_groups, len(PALETTE))]
    colours = np.full(len(names), OTHERS, dtype=object)
    colours[shown] = PALETTE[: len(shown)]
    figure = new_figure(9, 7, dpi=150)
    axes = figure.add_subplot()
    n = len(points)
    # One shuffled layer, so that no group hides another by being drawn last.
    order = np.random.default_rng(0).permutation(n)
    size = float(np.clip(60_000 / n, 0.4, 14))
    axes.scatter(
        points[order, 0],
        points[order, 1],
        s=size,
        c=list(colours[numbers[order]]),
        alpha=0.25 if n > CROWDED else 0.6,
        linewidths=0,
        rasterized=True,
    )
    placed: list[tuple[float, float]] = []
    low, high = np.percentile(points, [0.2, 99.8], axis=0)
    margin = np.maximum((high - low) * 0.06, 1e-6)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    for group in shown:
        x, y = _clear_of(placed, _densest(points[numbers == group]), high - low)
        placed.append((x, y))
        label = axes.text(
            x, y, plain(str(names[group])[:28]), fontsize=10, fontweight="bold", ha="center",
            va="center", color=str(colours[group]),
        )  # fmt: skip
        label.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])
    axes.set_title(plain(title), color=INK, fontsize=12, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c9d0d8")
    write_atomic(path, to_png(figure))


def _densest(points: Floats) -> tuple[float, float]:
    """Centre of the fullest cell of a coarse grid over a group."""
    if len(points) < 8:
        x, y = np.median(points, axis=0)
        return float(x), float(y)
    counts, x_edges, y_edges = np.histogram2d(points[:, 0], points[:, 1], bins=12)
    i, j = np.unravel_index(int(counts.argmax()), counts.shape)
    return float(x_edges[i : i + 2].mean()), float(y_edges[j : j + 2].mean())


def _clear_of(
    placed: list[tuple[float, float]], wanted: tuple[float, float], extent: NDArray[Any]
) -> tuple[float, float]:
    """The wanted place of a name, moved down in steps until it covers no other name."""
    x, y = wanted
    wide, tall = 0.055 * float(extent[0]), 0.035 * float(extent[1])
    for _ in range(len(placed) + 1):
        if not any(abs(x - a) < wide and abs(y - b) < tall for a, b in placed):
            break
        y -= tall
    return x, y
