"""True neighbours of the training vectors, and batches drawn from one neighbourhood at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray


def neighbor_lists(x: NDArray[np.float32], k: int, *, metric: str) -> NDArray[np.int32]:
    """Exact nearest neighbours of every row among the rows, the row itself included.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        At unit scale (so that "cosine" is an inner product).
    k : int
        Neighbours a row, at most n.
    metric : {"cosine", "ip", "l2"}

    Returns
    -------
    ndarray of shape (n, k), int32
    """
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    found: NDArray[np.int32] = faiss.knn(x, x, k, metric=kind)[1].astype(np.int32)
    return found


@dataclass(frozen=True)
class Neighborhoods:
    """Batches whose documents are neighbours of a few seeds, so that they compete.

    Random batches are too easy: almost no document in them is near another. Here every
    anchor meets many of its true neighbours, and the neighbours of other seeds besides.

    Parameters
    ----------
    lists : ndarray of shape (n, k), int32
        Of :func:`neighbor_lists`.
    seeds : int
        Neighbourhoods a batch.
    anchors : int
        Anchors a batch, drawn from its documents.
    """

    lists: NDArray[np.int32]
    seeds: int
    anchors: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches after which each vector was drawn about once."""
        return max(1, round(self.lists.shape[0] / (self.seeds * self.lists.shape[1])))

    def batches(
        self, rng: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Endless (documents, anchors), as rows of the training vectors."""
        n = self.lists.shape[0]
        while True:
            seeds = rng.integers(0, n, self.seeds)
            documents = np.unique(self.lists[seeds]).astype(np.int64)
            anchors = rng.choice(documents, min(self.anchors, len(documents)), replace=False)
            yield documents, anchors
