"""Clusters of vectors by k-means, and how well they agree with true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import MissingDependencyError, UsageError
from embedpress.threads import faiss_threads
from embedpress.vectors import check_vectors

Floats = NDArray[np.float32]
SAMPLE = 20_000
"""Rows that decide how many clusters there are."""


@dataclass(frozen=True)
class Clustering:
    """What k-means found.

    Attributes
    ----------
    labels : ndarray of shape (n,), int64
        Cluster of each row.
    centroids : ndarray of shape (n_clusters, d), float32
        Of norm 1 where spherical.
    sizes : ndarray of shape (n_clusters,), int64
    typical : list of ndarray of int64
        Rows nearest to each centroid, nearest first.
    objective : float
        Mean squared distance of a row to its centroid.
    """

    labels: NDArray[np.int64]
    centroids: Floats
    sizes: NDArray[np.int64]
    typical: list[NDArray[np.int64]]
    objective: float


def cluster(
    x: Any,
    n_clusters: int | None = None,
    *,
    spherical: bool = True,
    seed: int = 0,
    n_iter: int = 25,
    n_redo: int = 3,
    n_typical: int = 5,
    num_threads: int | None = None,
) -> Clustering:
    """k-means of vectors by FAISS.

    Parameters
    ----------
    x : array-like of shape (n, d)
        Latents or embeddings.
    n_clusters : int, optional
        By default the number on a geometric grid from 2 to the square root of n with the
        best simplified silhouette on a sample of 20,000 rows.
    spherical : bool
        Compare directions, as for cosine: rows are scaled to norm 1, a zero row is left.
    seed : int
    n_iter : int
        Rounds of k-means.
    n_redo : int
        Starts, of which the best is kept.
    n_typical : int
        Typical rows a cluster.
    num_threads : int, optional

    Returns
    -------
    Clustering

    Raises
    ------
    UsageError
        More clusters than rows, or none.
    InputError
        Rows that cannot be used.

    Notes
    -----
    Spherical k-means: Dhillon and Modha, "Concept decompositions for large sparse text data
    using clustering" (2001). Simplified silhouette: Hruschka et al. (2004).
    """
    rows = check_vectors(np.asarray(x), what="vectors")
    if spherical:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if n_clusters is not None and not 1 <= n_clusters <= len(rows):
        raise UsageError(f"n_clusters={n_clusters} must lie between 1 and the {len(rows)} rows")
    with faiss_threads(num_threads):
        if n_clusters is None:
            n_clusters = choose_n_clusters(rows, spherical=spherical, seed=seed)
        centroids = _kmeans(rows, n_clusters, spherical, seed, n_iter, n_redo)
        distances, nearest = faiss.knn(rows, centroids, 1)
    labels, away = nearest[:, 0].astype(np.int64), distances[:, 0]
    order = np.lexsort((away, labels))
    starts = np.searchsorted(labels[order], np.arange(n_clusters + 1))
    return Clustering(
        labels=labels,
        centroids=centroids,
        sizes=np.bincount(labels, minlength=n_clusters),
        typical=[order[low : low + min(n_typical, high - low)] for low, high in _pairs(starts)],
        objective=float(np.maximum(away, 0).mean()),
    )


def choose_n_clusters(x: Floats, *, spherical: bool, seed: int) -> int:
    """The grid's number of clusters with the best simplified silhouette.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
    spherical : bool
    seed : int

    Returns
    -------
    int
        1 where there are fewer than 4 rows.
    """
    if len(x) < 4:
        return 1
    if len(x) > SAMPLE:
        x = x[np.sort(np.random.default_rng(seed).permutation(len(x))[:SAMPLE])]
    most = max(2, int(np.sqrt(len(x))))
    grid = sorted({int(n) for n in np.geomspace(2, most, 12).round()})
    scores = []
    for n_clusters in grid:
        centroids = _kmeans(x, n_clusters, spherical, seed, 10, 1)
        away = np.sqrt(np.maximum(faiss.knn(x, centroids, 2)[0], 0))
        scores.append(float((1 - away[:, 0] / np.maximum(away[:, 1], 1e-12)).mean()))
    return grid[int(np.argmax(scores))]


def agreement(truth: Sequence[Any], labels: NDArray[np.int64]) -> dict[str, float]:
    """How well clusters match true labels; rows without one (None) are left out.

    Parameters
    ----------
    truth : sequence
        True labels, of any hashable kind.
    labels : ndarray of shape (n,), int64

    Returns
    -------
    dict
        ``nmi`` (normalized mutual information), ``ari`` (adjusted Rand index) and ``purity``,
        each 1 for a perfect match.

    Raises
    ------
    MissingDependencyError
        Without scikit-learn.
    """
    try:
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    except ImportError as error:
        raise MissingDependencyError(
            "comparing with true labels needs scikit-learn: pip install 'embedpress[train]'"
        ) from error
    known = np.array([value is not None for value in truth], dtype=bool)
    if not known.any():
        raise UsageError("there are no true labels to compare with")
    _, true = np.unique([str(value) for value in truth if value is not None], return_inverse=True)
    found = labels[known]
    counts = np.zeros((found.max() + 1, true.max() + 1), np.int64)
    np.add.at(counts, (found, true), 1)
    return {
        "nmi": float(normalized_mutual_info_score(true, found)),
        "ari": float(adjusted_rand_score(true, found)),
        "purity": float(counts.max(axis=1).sum() / len(true)),
    }


def _kmeans(
    x: Floats, n_clusters: int, spherical: bool, seed: int, n_iter: int, n_redo: int
) -> Floats:
    kmeans = faiss.Kmeans(
        x.shape[1],
        n_clusters,
        niter=n_iter,
        nredo=n_redo,
        seed=seed + 1,
        spherical=spherical,
        min_points_per_centroid=1,
        max_points_per_centroid=max(256, -(-100_000 // n_clusters)),
    )
    kmeans.train(np.ascontiguousarray(x))
    centroids: Floats = kmeans.centroids
    return centroids


def _pairs(starts: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in zip(starts[:-1], starts[1:], strict=True)]
