"""Clusters of any shape by density: HDBSCAN, which leaves sparse rows to no cluster."""

from __future__ import annotations

import numpy as np

from embedpress.errors import MissingDependencyError
from embedpress.evaluate.exact import Floats, Ids
from embedpress.threads import check_threads

NOISE = -1
MOST_ROWS = 20_000
"""Rows that take part: time grows with their square."""


def dense_groups(x: Floats, *, min_cluster_size: int, num_threads: int | None = None) -> Ids:
    """Label rows by HDBSCAN.

    Parameters
    ----------
    x : ndarray, shape (n, d), float32
        Of length 1 where only directions count.
    min_cluster_size : int
        Rows below which a dense place is no cluster; at least 2.
    num_threads : int, optional

    Returns
    -------
    ndarray, shape (n,), int64
        -1 for noise.

    Raises
    ------
    MissingDependencyError
        Without scikit-learn.

    Notes
    -----
    Campello et al. 2013, as scikit-learn does it, by Euclidean distance: between rows of length
    1 it orders pairs as the cosine does.
    """
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise MissingDependencyError(
            "clusters by HDBSCAN need scikit-learn: pip install 'embedpress[train]'"
        ) from error
    if len(x) <= min_cluster_size:
        return np.full(len(x), NOISE, np.int64)
    model = HDBSCAN(min_cluster_size=min_cluster_size, n_jobs=check_threads(num_threads), copy=True)
    return np.asarray(model.fit_predict(x), np.int64)


def group_means(x: Floats, labels: Ids) -> Floats:
    """The mean of each labelled group, noise left out.

    Parameters
    ----------
    x : ndarray, shape (n, d), float32
    labels : ndarray, shape (n,), int64

    Returns
    -------
    ndarray, shape (max(labels) + 1, d), float32
    """
    n_groups = int(labels.max(initial=NOISE)) + 1
    means = [x[labels == group].mean(axis=0, dtype=np.float64) for group in range(n_groups)]
    return np.asarray(means, np.float32).reshape(n_groups, x.shape[1])
