"""How many clusters there are, where nobody says."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedpress.analyze.kmeans import nearest, train_centroids
from embedpress.evaluate.axes import principal_axes
from embedpress.evaluate.exact import Floats, unit_rows
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_vectors

CRITERION = "simplified silhouette above that of Gaussian noise"
SAMPLE_ROWS = 10_000
CHOICE_COMPONENTS = 32
TOLERANCE = 0.1
MOST_CLUSTERS = 128


def choose_n_clusters(
    x: Any, *, spherical: bool = True, seed: int = 0, num_threads: int | None = None
) -> tuple[int, dict[int, float]]:
    """The number of clusters that stands out most from noise without any.

    Parameters
    ----------
    x : array_like, shape (n, d), float
    spherical : bool
        Compare directions (cosine) rather than positions.
    seed : int
    num_threads : int, optional

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
        return choose(a, seed=seed)


def choose(x: Floats, *, seed: int) -> tuple[int, dict[int, float]]:
    """:func:`choose_n_clusters` of checked rows, of length 1 where only directions count."""
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
    centroids = train_centroids(x, n_clusters, spherical=False, seed=seed)
    own, other = np.sqrt(nearest(x, centroids, 2)[1].astype(np.float64)).T
    # Two centroids in one place give 0 / 0: a row between them belongs to neither.
    width = np.where(other > 0, (other - own) / np.where(other > 0, other, 1), 0)
    return float(width.mean())
