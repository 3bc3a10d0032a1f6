"""Vectors in the plane, and the nearest others of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedpress.analyze.layout import NEIGHBORS, lay_out
from embedpress.analyze.picture import draw_map
from embedpress.errors import MissingDependencyError, UsageError
from embedpress.evaluate.axes import principal_axes
from embedpress.evaluate.exact import Floats, Ids, others, unit_rows
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_metric, check_vectors

__all__ = ["Projection", "draw_map", "nearest_others", "neighbors", "project"]

METHODS = ("auto", "pca", "graph", "umap")
LAYOUT_COMPONENTS = 50
LAYOUT_ROWS = 30_000
EXACT_ROWS = 50_000
PLACED_BY = 3


@dataclass(frozen=True)
class Projection:
    """Points in the plane.

    Attributes
    ----------
    points : ndarray, shape (n, 2), float32
    method : str
        How they were placed, as it is written under a picture: "PCA", "neighbour graph", "UMAP".
    """

    points: Floats
    method: str


def project(
    x: Any,
    *,
    method: str = "auto",
    metric: str = "cosine",
    seed: int = 0,
    num_threads: int | None = None,
) -> Projection:
    """Lay vectors out in the plane.

    Parameters
    ----------
    x : array_like, shape (n, d), float
    method : {"auto", "pca", "graph", "umap"}
        "pca" is linear, "graph" keeps neighbours together (see
        :func:`embedpress.analyze.layout.lay_out`), "umap" needs the package umap-learn. "auto"
        is UMAP where it is installed, else "graph".
    metric : {"cosine", "ip", "l2"}
        Of the neighbours; "cosine" scales all to length 1 first.
    seed : int
    num_threads : int, optional

    Returns
    -------
    Projection
        The same for the same `seed` but for UMAP's own variation between versions.

    Raises
    ------
    UsageError
        Unknown method or metric.
    MissingDependencyError
        "umap" without umap-learn.

    Notes
    -----
    "graph" works in the first 50 principal components. Above 30,000 rows a sample of as many
    is laid out, and each other row is put between the three of them that are nearest to it.
    """
    check_metric(metric)
    if method not in METHODS:
        raise UsageError(f"method {method!r} is not one of {', '.join(METHODS)}")
    a = check_vectors(x, metric="cosine" if metric == "cosine" else None, what="vectors")
    a = unit_rows(a) if metric == "cosine" else a
    if method in ("auto", "umap"):
        try:
            from umap import UMAP
        except ImportError as error:
            if method == "umap":
                raise MissingDependencyError(
                    "the map by UMAP needs umap-learn: pip install 'embedpress[umap]'"
                ) from error
        else:
            model = UMAP(n_components=2, random_state=seed)
            return Projection(np.asarray(model.fit_transform(a), np.float32), "UMAP")
    if method == "pca":
        return Projection(_principal(a, 2), "PCA")
    with faiss_threads(num_threads):
        return Projection(_graph_layout(a, seed), "neighbour graph")


def nearest_others(
    x: Any, k: int, *, metric: str, num_threads: int | None = None
) -> tuple[Ids, Floats]:
    """The `k` nearest other rows of each row.

    Parameters
    ----------
    x : array_like, shape (n, d), float
    k : int
        At least 1; fewer are given where there are fewer other rows.
    metric : {"cosine", "ip", "l2"}
    num_threads : int, optional

    Returns
    -------
    rows : ndarray, shape (n, min(k, n - 1)), int64
        Nearest first, -1 where the approximate search found fewer.
    distances : ndarray of the same shape, float32
        One less the cosine for "cosine", minus the inner product for "ip", Euclidean for "l2".

    Notes
    -----
    Exact up to 50,000 rows; above it FAISS's inverted lists, of which the 32 nearest are
    searched.
    """
    check_metric(metric)
    if k < 1:
        raise UsageError(f"k is {k}: give 1 or more")
    a = check_vectors(x, metric=metric, what="vectors")
    a = unit_rows(a) if metric == "cosine" else a
    with faiss_threads(num_threads):
        rows, scores = _search(a, a, min(k + 1, len(a)), l2=metric == "l2")
    rows, scores = _without_self(rows, scores)
    if metric == "l2":
        return rows, np.sqrt(np.maximum(scores, 0))
    return rows, np.asarray(np.maximum(1 - scores, 0) if metric == "cosine" else -scores)


def neighbors(
    x: Any, k: int, *, metric: str, num_threads: int | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """:func:`nearest_others` as lists, the form in which map viewers read them."""
    rows, distances = nearest_others(x, k, metric=metric, num_threads=num_threads)
    found = rows >= 0
    return (
        [line[there].tolist() for line, there in zip(rows, found, strict=True)],
        [line[there].tolist() for line, there in zip(distances, found, strict=True)],
    )


def _principal(x: Floats, n_components: int) -> Floats:
    axes = principal_axes(x, min(n_components, x.shape[1]))
    points = (x - x.mean(axis=0, dtype=np.float64).astype(np.float32)) @ axes
    missing = n_components - points.shape[1] if n_components == 2 else 0
    return np.ascontiguousarray(np.pad(points, ((0, 0), (0, missing))), np.float32)


def _graph_layout(x: Floats, seed: int) -> Floats:
    z = _principal(x, LAYOUT_COMPONENTS)
    rows = np.sort(np.random.default_rng(seed).permutation(len(z))[:LAYOUT_ROWS])
    sample = np.ascontiguousarray(z[rows])
    found, squared = _search(sample, sample, min(NEIGHBORS + 1, len(sample)), l2=True)
    near, squared = _without_self(found, squared)
    if not near.shape[1]:
        return np.zeros((len(x), 2), np.float32)
    start = sample[:, :2] if sample.shape[1] > 1 else np.pad(sample, ((0, 0), (0, 1)))
    laid_out = lay_out(start, near, np.sqrt(np.maximum(squared, 0)), seed=seed)
    if len(rows) == len(z):
        return laid_out
    points = np.empty((len(z), 2), np.float32)
    points[rows] = laid_out
    rest = np.setdiff1d(np.arange(len(z)), rows)
    found, squared = _search(sample, np.ascontiguousarray(z[rest]), PLACED_BY, l2=True)
    weights = 1 / (np.maximum(squared, 0) + 1e-6)
    weights /= weights.sum(axis=1, keepdims=True)
    points[rest] = np.einsum("ij,ijk->ik", weights, laid_out[found])
    return points


def _search(base: Floats, queries: Floats, k: int, *, l2: bool) -> tuple[Ids, Floats]:
    import faiss

    kind = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
    if len(base) <= EXACT_ROWS:
        scores, rows = faiss.knn(queries, base, k, metric=kind)
        return rows, scores
    lists = int(4 * np.sqrt(len(base)))
    coarse = faiss.IndexFlat(base.shape[1], kind)
    index: Any = faiss.IndexIVFFlat(coarse, base.shape[1], lists, kind)
    index.cp.niter = 10
    index.cp.max_points_per_centroid = 64
    index.cp.min_points_per_centroid = 1
    index.train(base)
    index.add(base)
    index.nprobe = 32
    scores, rows = index.search(queries, k)
    return rows, scores


def _without_self(rows: Ids, scores: Floats) -> tuple[Ids, Floats]:
    n, k = rows.shape
    kept = others(rows, np.arange(n))
    return rows[kept].reshape(n, k - 1), scores[kept].reshape(n, k - 1)
