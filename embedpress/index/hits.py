"""What a search found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Hits:
    """The nearest rows, a line a query.

    Attributes
    ----------
    rows : ndarray of shape (n_queries, k), int64
        Rows of the index, best first; -1 where there were fewer than `k`.
    scores : ndarray of shape (n_queries, k), float32
        Larger is nearer, but for "l2": squared distances. Infinitely far where the row is -1.
    """

    rows: Ints
    scores: Floats

    def lines(self) -> Iterator[tuple[Ints, Floats]]:
        """Rows and scores that each query found."""
        for rows, scores in zip(self.rows, self.scores, strict=True):
            yield rows[rows >= 0], scores[rows >= 0]


@dataclass(frozen=True)
class RangeHits:
    """All rows within a radius, as FAISS's ``range_search`` gives them.

    Attributes
    ----------
    lims : ndarray of shape (n_queries + 1,), int64
        Query i found ``rows[lims[i]:lims[i + 1]]``.
    rows : ndarray of shape (lims[-1],), int64
        Rows of the index; best first for each query.
    scores : ndarray of shape (lims[-1],), float32
    """

    lims: Ints
    rows: Ints
    scores: Floats

    def lines(self) -> Iterator[tuple[Ints, Floats]]:
        """Rows and scores that each query found."""
        for low, high in zip(self.lims[:-1], self.lims[1:], strict=True):
            yield self.rows[low:high], self.scores[low:high]


def padded(rows: Ints, scores: Floats, k: int, metric: str) -> Hits:
    """Exactly `k` a query."""
    rows, scores = rows[:, :k], scores[:, :k]
    missing = max(0, k - rows.shape[1])
    rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
    worst = np.float32(np.inf if metric == "l2" else -np.inf)
    return Hits(rows, np.where(rows >= 0, np.pad(scores, ((0, 0), (0, missing))), worst))


def best_first(scores: Floats, metric: str) -> Ints:
    """The order of scores along the last axis."""
    order: Ints = np.argsort(scores if metric == "l2" else -scores, axis=-1, kind="stable")
    return order
