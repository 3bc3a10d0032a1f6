"""Batches of vectors that are true neighbours of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

STEPS_AHEAD = 64
"""Batches whose neighbours are searched together: one large matrix product, not many."""


Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Rows of the vectors: documents, for each a vector of its neighbourhood, and anchors."""

    documents: Rows
    partners: Rows
    anchors: Rows


@dataclass(frozen=True)
class Neighborhoods:
    """Batches whose documents are the true neighbours of a few seeds, so that they compete.

    Random batches are too easy: almost no document in them is near another. Here every
    anchor meets many of its true neighbours, and the neighbours of other seeds besides.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), float32
        At unit scale (so that "cosine" is an inner product).
    metric : {"cosine", "ip", "l2"}
    seeds : int
        Neighbourhoods a batch.
    size : int
        Nearest vectors of a seed in its neighbourhood, the seed itself included.
    anchors : int
        Anchors a batch, drawn from its documents.
    """

    vectors: NDArray[np.float32]
    metric: str
    seeds: int
    size: int
    anchors: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches after which each vector was drawn about once."""
        return max(1, round(len(self.vectors) / (self.seeds * self.size)))

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless batches."""
        kind = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        size = min(self.size, len(self.vectors))
        while True:
            seeds = rng.integers(0, len(self.vectors), STEPS_AHEAD * self.seeds)
            found = faiss.knn(self.vectors[seeds], self.vectors, size, metric=kind)[1]
            for lists in found.reshape(STEPS_AHEAD, -1):
                documents, first = np.unique(lists, return_index=True)
                anchors = rng.choice(documents, min(self.anchors, len(documents)), replace=False)
                # Another place in the list that a document was first met in.
                place = first // size * size + rng.integers(0, size, len(documents))
                yield Batch(documents, lists[place], anchors)
