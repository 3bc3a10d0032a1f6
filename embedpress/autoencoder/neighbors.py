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
    """Rows of the vectors: documents, for each a vector of its neighbourhood, and anchors.

    Where `asked` the anchors are rows of the sample queries.
    """

    documents: Rows
    partners: Rows
    anchors: Rows
    asked: bool


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
    queries : ndarray of shape (m, d), float32, or None
        Sample queries. Every other batch is made of the neighbourhoods of some of them, with
        the queries nearest to these as anchors.
    """

    vectors: NDArray[np.float32]
    metric: str
    seeds: int
    size: int
    anchors: int
    queries: NDArray[np.float32] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches after which each vector was drawn about once."""
        return max(1, round(len(self.vectors) / (self.seeds * self.size)))

    @property
    def kinds(self) -> int:
        """2 where every other batch is made around sample queries, else 1."""
        return 1 if self.queries is None else 2

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless batches."""
        kinds = [self._around(self.vectors, rng)]
        if self.queries is not None:
            kinds.append(self._around(self.queries, rng))
        while True:
            for batches in kinds:
                yield next(batches)

    def _around(self, asking: NDArray[np.float32], rng: np.random.Generator) -> Iterator[Batch]:
        """Batches whose seeds are rows of `asking`: the vectors themselves, or the queries."""
        asked = asking is self.queries
        size = min(self.size, len(self.vectors))
        while True:
            seeds = asking[rng.integers(0, len(asking), STEPS_AHEAD * self.seeds)]
            found = self._nearest(seeds, self.vectors, size)
            if asked:
                near = min(max(1, self.anchors // self.seeds), len(asking))
                askers = self._nearest(seeds, asking, near)
            for step, lists in enumerate(found):
                documents, first = np.unique(lists, return_index=True)
                anchors = (
                    np.unique(askers[step])
                    if asked
                    else rng.choice(documents, min(self.anchors, len(documents)), replace=False)
                )
                # Another place in the list that a document was first met in.
                place = first // size * size + rng.integers(0, size, len(documents))
                yield Batch(documents, lists[place], anchors, asked)

    def _nearest(
        self, seeds: NDArray[np.float32], among: NDArray[np.float32], k: int
    ) -> NDArray[np.int64]:
        """The `k` rows nearest to every seed: a line a step, its seeds' lists end to end."""
        kind = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        return faiss.knn(seeds, among, k, metric=kind)[1].reshape(STEPS_AHEAD, -1)
