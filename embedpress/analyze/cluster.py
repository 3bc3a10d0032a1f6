"""Clusters by k-means, their number chosen where it is not given, and agreement with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, MissingDependencyError, UsageError
from embedpress.evaluate.axes import principal_axes
from embedpress.evaluate.exact import Floats, Ids, unit_rows
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_vectors

ITERATIONS = 25
RESTARTS = 5
MANY_CLUSTERS = 200
POINTS_PER_CENTROID = 1024
SAMPLE_ROWS = 10_000
CHOICE_COMPONENTS = 32
TOLERANCE = 0.1
MOST_CLUSTERS = 128
BLOCK_ROWS = 65536


@dataclass(frozen=True)
class Clustering:
    """A division of rows into clusters, the largest first.

    Attributes
    ----------
    labels : ndarray, shape (n,), int64
        Cluster of each row.
    centroids : ndarray, shape (n_clusters, d), float32
        Of length 1 when spherical.
    sizes : ndarray, shape (n_clusters,), int64
    typical : list of ndarray, int64
        Of each cluster the rows nearest to its centroid, nearest first.
    objective : float
        Mean over the rows of the squared distance to the own centroid (of unit vectors when
        spherical).
    silhouettes : dict of int to float
        What was tried when the number of clusters was to be chosen, else empty.
    """

    labels: Ids
    centroids: Floats
    sizes: Ids
    typical: list[Ids]
    objective: float
    silhouettes: dict[int, float]


def cluster(
    x: Any,
    n_clusters: int | None = None,
    *,
    spherical: bool = True,
    n_typical: int = 5,
    seed: int = 0,
    num_threads: int | None = None,
) -> Clustering:
    """Divide vectors into clusters by k-means.

    Parameters
    ----------
    x : array_like, shape (n, d), float
    n_clusters : int, optional
        1 to the number of rows; chosen by :func:`choose_n_clusters` if not given.
    spherical : bool
        Compare directions (cosine) rather than positions.
    n_typical : int
        Rows named for each cluster.
    seed : int
    num_threads : int, optional

    Returns
    -------
    Clustering
        With fewer than `n_clusters` clusters only where the rows have fewer distinct values.

    Raises
    ------
    InputError
        Vectors that cannot be used.
    UsageError
        `n_clusters` outside 1 to the number of rows.

    Notes
    -----
    FAISS's k-means, the best of five starts (of one beyond 200 clusters), trained on at most
    1,024 rows a cluster and then applied to all. Spherical k-means: Dhillon and Modha 2001.
    """
    a = check_vectors(x, metric="cosine" if spherical else None)
    if n_clusters is not None and not 1 <= n_clusters <= len(a):
        raise UsageError(f"n_clusters is {n_clusters}: with {len(a)} rows give 1 to {len(a)}")
    a = unit_rows(a) if spherical else a
    tried: dict[int, float] = {}
    with faiss_threads(num_threads):
        if n_clusters is None:
            n_clusters, tried = _choose(a, seed=seed)
        centroids = _kmeans(a, n_clusters, spherical=spherical, seed=seed)
        labels, squared = _nearest(a, centroids, 1)
    return _described(labels[:, 0], squared[:, 0], centroids, n_typical, tried)


def choose_n_clusters(
    x: Any, *, spherical: bool = True, seed: int = 0, num_threads: int | None = None
) -> tuple[int, dict[int, float]]:
    """The number of clusters that stands out most from noise without any.

    Parameters
    ----------
    x, spherical, seed, num_threads
        As in :func:`cluster`.

    Returns
    -------
    n_clusters : int
        1 with fewer than 20 rows, or where all are the same.
    silhouettes : dict of int to float
        Each number that was tried and its figure.

    Notes
    -----
    The figure is the mean simplified silhouette of the rows less that of Gaussian noise with the
    same variances, both in their first 32 principal components: by itself a silhouette falls and
    then rises with the number of clusters even where there are none. It is (b - a) / b of a row's
    distances to the nearest and the second nearest centroid (Hruschka et al. 2004); to compare
    with noise is the idea of the gap statistic (Tibshirani et al. 2001). On a sample of at most
    10,000 rows numbers from 2 to 128 (at most a tenth of the rows) in steps of about the square
    root of 2 are tried. Of local maxima within 10 % of the highest the one of most clusters
    counts, since a division in two often stands out no less than a finer one and says less. Up
    to eight numbers between its two neighbours are tried last, and the best is taken.
    """
    a = check_vectors(x, metric="cosine" if spherical else None)
    a = unit_rows(a) if spherical else a
    with faiss_threads(num_threads):
        return _choose(a, seed=seed)


def agreement(labels_true: Sequence[Any] | NDArray[Any], labels: Any) -> dict[str, float]:
    """How well clusters agree with true classes.

    Parameters
    ----------
    labels_true : sequence, length n
        Numbers or text.
    labels : array_like, shape (n,), int

    Returns
    -------
    dict
        ``nmi`` (normalised mutual information, arithmetic mean), ``ari`` (adjusted Rand index)
        and ``purity`` (share of rows whose class is the most frequent of their cluster, which
        grows with the number of clusters).

    Raises
    ------
    InputError
        Labels of unequal length, or none.
    MissingDependencyError
        Without scikit-learn.
    """
    try:
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    except ImportError as error:
        raise MissingDependencyError(
            "agreement with labels needs scikit-learn: pip install 'embedpress[train]'"
        ) from error
    found = np.asarray(labels)
    classes = [str(value) for value in labels_true]
    if found.ndim != 1 or len(found) != len(classes) or not len(found):
        raise InputError(f"there are {len(classes)} true labels for {found.shape} clusters")
    names, true = np.unique(classes, return_inverse=True)
    clusters, own = np.unique(found, return_inverse=True)
    table = np.bincount(own * len(names) + true, minlength=len(clusters) * len(names))
    return {
        "nmi": float(normalized_mutual_info_score(true, own)),
        "ari": float(adjusted_rand_score(true, own)),
        "purity": float(table.reshape(len(clusters), -1).max(axis=1).sum() / len(found)),
    }


def _kmeans(x: Floats, n_clusters: int, *, spherical: bool, seed: int) -> Floats:
    import faiss

    if n_clusters == 1:
        mean = x.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return unit_rows(mean) if spherical else mean
    best, least = np.empty((0, 0), np.float32), np.inf
    for start in range(RESTARTS if n_clusters <= MANY_CLUSTERS else 1):
        means: Any = faiss.Kmeans(
            x.shape[1],
            n_clusters,
            niter=ITERATIONS,
            spherical=spherical,
            seed=1 + RESTARTS * seed + start,
            min_points_per_centroid=1,
            max_points_per_centroid=POINTS_PER_CENTROID,
        )
        # Only newer versions of FAISS can start spread out (k-means++) rather than at random rows.
        spread_out = getattr(faiss, "ClusteringInitMethod_KMEANS_PLUS_PLUS", None)
        if spread_out is not None:
            means.cp.init_method = spread_out
        means.train(x)
        # Spherical k-means adds up inner products, of which more is better.
        objective = -float(means.obj[-1]) if spherical else float(means.obj[-1])
        if start == 0 or objective < least:
            best, least = np.asarray(means.centroids, np.float32), objective
    return best


def _nearest(x: Floats, centroids: Floats, k: int) -> tuple[Ids, Floats]:
    import faiss

    labels = np.empty((len(x), k), np.int64)
    squared = np.empty((len(x), k), np.float32)
    for s in range(0, len(x), BLOCK_ROWS):
        part = slice(s, s + BLOCK_ROWS)
        squared[part], labels[part] = faiss.knn(x[part], centroids, k)
    return labels, np.maximum(squared, 0)


def _described(
    labels: Ids, squared: Floats, centroids: Floats, n_typical: int, tried: dict[int, float]
) -> Clustering:
    sizes = np.bincount(labels, minlength=len(centroids))
    # Largest first, so that a cluster's number says something; empty ones go.
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    renamed = np.full(len(centroids), -1, np.int64)
    renamed[order] = np.arange(len(order))
    labels = renamed[labels]
    near = np.lexsort((squared, labels))
    starts = np.concatenate([[0], np.cumsum(sizes[order])])
    typical = [near[start : min(start + n_typical, stop)] for start, stop in pairwise(starts)]
    objective = float(squared.mean(dtype=np.float64))
    return Clustering(labels, centroids[order], sizes[order], typical, objective, tried)


def _choose(x: Floats, *, seed: int) -> tuple[int, dict[int, float]]:
    rng = np.random.default_rng(seed)
    sample = x[np.sort(rng.permutation(len(x))[:SAMPLE_ROWS])]
    axes = principal_axes(sample, min(CHOICE_COMPONENTS, x.shape[1]))
    z = np.ascontiguousarray((sample - sample.mean(axis=0)) @ axes)
    spread = z.std(axis=0)
    most = min(MOST_CLUSTERS, len(z) // 10)
    if most < 2 or not spread.any():
        return 1, {}
    noise = rng.standard_normal(z.shape, dtype=np.float32) * spread
    tried: dict[int, float] = {}

    def attempt(k: int) -> None:
        tried[k] = _silhouette(z, k, seed=seed) - _silhouette(noise, k, seed=seed)

    grid = sorted({round(2 ** (step / 2)) for step in range(2, 15)} & set(range(2, most + 1)))
    for k in grid:
        attempt(k)
    place = _last_peak([tried[k] for k in grid])
    between = range(grid[max(0, place - 1)] + 1, grid[min(len(grid) - 1, place + 1)])
    fresh = [k for k in between if k not in tried]
    for k in fresh[:: max(1, -(-len(fresh) // 8))]:
        attempt(k)
    chosen = max([grid[place], *fresh], key=lambda k: tried.get(k, -np.inf))
    return chosen, dict(sorted(tried.items()))


def _last_peak(figures: list[float]) -> int:
    """Place of the last local maximum that comes near the highest."""
    padded = [-np.inf, *figures, -np.inf]
    enough = max(figures) - TOLERANCE * abs(max(figures))
    return max(
        i
        for i, figure in enumerate(figures)
        if figure >= enough and padded[i] <= figure >= padded[i + 2]
    )


def _silhouette(x: Floats, n_clusters: int, *, seed: int) -> float:
    centroids = _kmeans(x, n_clusters, spherical=False, seed=seed)
    own, other = np.sqrt(_nearest(x, centroids, 2)[1].astype(np.float64)).T
    # Two centroids in one place give 0 / 0: a row between them belongs to neither.
    width = np.where(other > 0, (other - own) / np.where(other > 0, other, 1), 0)
    return float(width.mean())
