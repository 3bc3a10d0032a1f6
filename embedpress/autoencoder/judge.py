"""recall of compressed search where every vector asks for its own neighbours."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray


def leave_one_out_recall(
    unit: NDArray[np.float32],
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    *,
    metric: str,
    seed: int,
    k: int = 10,
    max_queries: int = 1000,
) -> float:
    """Share of the true `k` neighbours among the first `k` found, oneself left out.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float32
        Embeddings at unit scale, which give the truth.
    stored : ndarray of shape (n, w), float32
        What the search scores against.
    queries : ndarray of shape (n, w), float32
        Query latents of the same rows.
    metric : {"cosine", "ip", "l2"}
    seed : int
        Draws the rows that ask, where there are more than `max_queries`.
    k, max_queries : int

    Returns
    -------
    float
        In [0, 1].
    """
    n = len(unit)
    k = min(k, n - 1)
    if k < 1:
        return 1.0
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:max_queries])
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    truth = _without_self(faiss.knn(unit[rows], unit, k + 1, metric=kind)[1], rows, k)
    found = _without_self(faiss.knn(queries[rows], stored, k + 1, metric=kind)[1], rows, k)
    return float(
        np.mean([len(np.intersect1d(f, t)) / k for f, t in zip(found, truth, strict=True)])
    )


def _without_self(found: NDArray[np.int64], rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    kept = [line[line != row][:k] for line, row in zip(found, rows, strict=True)]
    return np.stack(kept)
