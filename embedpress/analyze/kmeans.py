"""K-means by FAISS: training, mini-batch refinement over what does not fit in memory, nearest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from embedpress.evaluate.exact import Floats, Ids, unit_rows
from embedpress.threads import faiss_threads, side_by_side

ITERATIONS = 25
RESTARTS = 5
MANY_CLUSTERS = 200
POINTS_PER_CENTROID = 1024
BLOCK_ROWS = 65536


def train_centroids(x: Floats, n_clusters: int, *, spherical: bool, seed: int) -> Floats:
    """Centroids by FAISS's k-means.

    Parameters
    ----------
    x : ndarray, shape (n, d), float32
        Of length 1 when `spherical`.
    n_clusters : int
    spherical : bool
        Keep centroids at length 1 (Dhillon and Modha 2001).
    seed : int

    Returns
    -------
    ndarray, shape (n_clusters, d), float32

    Notes
    -----
    The best of five starts (of one beyond 200 clusters), trained on the same rows, at most
    1,024 a cluster. Starts run side by side in few threads each: the steps of one are too small,
    of short vectors above all, to be shared out among many.
    """
    import faiss

    if n_clusters == 1:
        mean = x.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return unit_rows(mean) if spherical else mean
    most = POINTS_PER_CENTROID * n_clusters
    if len(x) > most:
        draw = np.random.default_rng(seed)
        x = x[np.sort(draw.choice(len(x), most, replace=False, shuffle=False))]
    starts = RESTARTS if n_clusters <= MANY_CLUSTERS else 1
    threads: int = faiss.omp_get_max_threads()

    def trained(start: int) -> tuple[float, Floats]:
        """The objective, of which less is better, and the centroids."""
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
        with faiss_threads(max(1, threads // starts)):
            means.train(x)
        # Spherical k-means adds up inner products, of which more is better.
        objective = -float(means.obj[-1]) if spherical else float(means.obj[-1])
        return objective, np.asarray(means.centroids, np.float32)

    return min(side_by_side(trained, range(starts), threads), key=lambda found: found[0])[1]


def refine(centroids: Floats, sizes: Ids, batches: Iterable[Floats], *, spherical: bool) -> Floats:
    """Move centroids by mini-batches of rows that were not all there to train on.

    Parameters
    ----------
    centroids : ndarray, shape (k, d), float32
    sizes : ndarray, shape (k,), int64
        Rows that each centroid was made of: the more, the less a batch moves it.
    batches : iterable of ndarray, shape (any, d), float32
        Of length 1 when `spherical`.
    spherical : bool

    Returns
    -------
    ndarray, shape (k, d), float32

    Notes
    -----
    Mini-batch k-means (Sculley 2010): a centroid is the running mean of all rows that were
    nearest to it when they came.
    """
    means, counts = centroids.astype(np.float64), sizes.astype(np.float64)
    for batch in batches:
        current = means.astype(np.float32)
        own = nearest(batch, unit_rows(current) if spherical else current, 1)[0][:, 0]
        came = np.bincount(own, minlength=len(means))
        order = np.argsort(own, kind="stable")
        here = np.flatnonzero(came)
        starts = np.concatenate([[0], np.cumsum(came[here])[:-1]])
        sums = np.add.reduceat(batch[order], starts, axis=0, dtype=np.float64)
        counts[here] += came[here]
        share = (came[here] / counts[here])[:, None]
        means[here] += share * (sums / came[here][:, None] - means[here])
    refined = np.asarray(means, np.float32)
    return unit_rows(refined) if spherical else refined


def nearest(x: Floats, centroids: Floats, k: int) -> tuple[Ids, Floats]:
    """The `k` nearest centroids of each row and the squared distances to them."""
    import faiss

    labels = np.empty((len(x), k), np.int64)
    squared = np.empty((len(x), k), np.float32)
    for s in range(0, len(x), BLOCK_ROWS):
        part = slice(s, s + BLOCK_ROWS)
        squared[part], labels[part] = faiss.knn(x[part], centroids, k)
    return labels, np.maximum(squared, 0)
