"""Clusters of vectors in memory, by k-means or by density."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from embedpress.analyze.agreement import agreement
from embedpress.analyze.choice import choose, choose_n_clusters
from embedpress.analyze.density import MOST_ROWS, NOISE, dense_groups, group_means
from embedpress.analyze.kmeans import nearest, train_centroids
from embedpress.errors import UsageError
from embedpress.evaluate.exact import Floats, Ids, unit_rows
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_vectors

__all__ = ["Clustering", "agreement", "choose_n_clusters", "cluster"]

METHODS = ("kmeans", "hdbscan")
MIN_CLUSTER_SIZE = 10


@dataclass(frozen=True)
class Clustering:
    """A division of rows into clusters, the largest first.

    Attributes
    ----------
    labels : ndarray, shape (n,), int64
        Cluster of each row; -1 for noise, which only HDBSCAN knows.
    centroids : ndarray, shape (n_clusters, d), float32
        Of length 1 when spherical.
    sizes : ndarray, shape (n_clusters,), int64
    typical : list of ndarray, int64
        Of each cluster the rows nearest to its centroid, nearest first.
    objective : float
        Mean over the rows of the squared distance to the own centroid (of unit vectors when
        spherical), noise left out; 0 where all is noise.
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
    method: str = "kmeans",
    min_cluster_size: int = MIN_CLUSTER_SIZE,
    spherical: bool = True,
    n_typical: int = 5,
    seed: int = 0,
    num_threads: int | None = None,
) -> Clustering:
    """Divide vectors into clusters.

    Parameters
    ----------
    x : array_like, shape (n, d), float
    n_clusters : int, optional
        1 to the number of rows; for k-means chosen by :func:`choose_n_clusters` if not given.
    method : {"kmeans", "hdbscan"}
        HDBSCAN (Campello et al. 2013) finds the number itself and leaves sparse rows out; it
        needs scikit-learn. Beyond 20,000 rows it works on a sample, and each other row goes
        with the nearest row of the sample.
    min_cluster_size : int
        Of HDBSCAN: fewer rows are no cluster.
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
        `n_clusters` outside 1 to the number of rows, or an option that does not go with the
        method.

    Notes
    -----
    FAISS's k-means, the best of five starts (of one beyond 200 clusters), trained on at most
    1,024 rows a cluster and then applied to all. Spherical k-means: Dhillon and Modha 2001.
    """
    a = check_vectors(x, metric="cosine" if spherical else None)
    check_options(method, n_clusters, min_cluster_size, len(a))
    a = unit_rows(a) if spherical else a
    tried: dict[int, float] = {}
    with faiss_threads(num_threads):
        if method == "hdbscan":
            labels = _dense(a, min_cluster_size, seed, num_threads)
            centroids = group_means(a, labels)
            centroids = unit_rows(centroids) if spherical else centroids
            away = a - np.concatenate([centroids, a[:1]])[labels]
            squared = np.einsum("ij,ij->i", away, away)
        else:
            if n_clusters is None:
                n_clusters, tried = choose(a, seed=seed)
            centroids = train_centroids(a, n_clusters, spherical=spherical, seed=seed)
            found, distances = nearest(a, centroids, 1)
            labels, squared = found[:, 0], distances[:, 0]
    return _described(labels, squared, centroids, n_typical, tried)


def check_options(method: str, n_clusters: int | None, min_cluster_size: int, n_rows: int) -> None:
    """Raise `UsageError` for a method that is not known or options that do not go with it."""
    if method not in METHODS:
        raise UsageError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if method == "hdbscan" and n_clusters is not None:
        raise UsageError("hdbscan finds the number of clusters itself: leave n_clusters out")
    if min_cluster_size < 2:
        raise UsageError(f"min_cluster_size is {min_cluster_size}: give 2 or more")
    if n_clusters is not None and not 1 <= n_clusters <= n_rows:
        raise UsageError(f"n_clusters is {n_clusters}: with {n_rows} rows give 1 to {n_rows}")


def by_size(sizes: Ids) -> tuple[Ids, Ids]:
    """The largest first, so that a cluster's number says something; empty ones go.

    Returns
    -------
    order : ndarray, int64
        Old numbers in their new order.
    renamed : ndarray, shape (len(sizes) + 1,), int64
        New numbers by the old ones; the last place keeps noise, -1, as it is.
    """
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    renamed = np.full(len(sizes) + 1, NOISE, np.int64)
    renamed[order] = np.arange(len(order))
    return order, renamed


def _dense(x: Floats, min_cluster_size: int, seed: int, num_threads: int | None) -> Ids:
    if len(x) <= MOST_ROWS:
        return dense_groups(x, min_cluster_size=min_cluster_size, num_threads=num_threads)
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:MOST_ROWS])
    sample = np.ascontiguousarray(x[rows])
    labels = dense_groups(sample, min_cluster_size=min_cluster_size, num_threads=num_threads)
    return labels[nearest(x, sample, 1)[0][:, 0]]


def _described(
    labels: Ids, squared: Floats, centroids: Floats, n_typical: int, tried: dict[int, float]
) -> Clustering:
    inside = labels != NOISE
    sizes = np.bincount(labels[inside], minlength=len(centroids))
    order, renamed = by_size(sizes)
    labels = renamed[labels]
    near = np.lexsort((squared, labels))[int((~inside).sum()) :]
    starts = np.concatenate([[0], np.cumsum(sizes[order])])
    typical = [near[start : min(start + n_typical, stop)] for start, stop in pairwise(starts)]
    objective = float(squared[inside].mean(dtype=np.float64)) if inside.any() else 0.0
    return Clustering(labels, centroids[order], sizes[order], typical, objective, tried)
