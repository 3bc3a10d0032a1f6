"""Batches of vectors that are true neighbours of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from embedpress.autoencoder.losses import similarity

STEPS_AHEAD = 64
"""Batches whose neighbours are searched together: one large matrix product, not many."""


Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
CPU = torch.device("cpu")


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
    device : torch.device
        Where neighbours are searched: by FAISS on the processor, elsewhere by torch.
    """

    vectors: Floats
    metric: str
    seeds: int
    size: int
    anchors: int
    queries: Floats | None = None
    device: torch.device = CPU

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

    def _around(self, asking: Floats, rng: np.random.Generator) -> Iterator[Batch]:
        """Batches whose seeds are rows of `asking`: the vectors themselves, or the queries."""
        asked = asking is self.queries
        size = min(self.size, len(self.vectors))
        near = min(max(1, self.anchors // self.seeds), len(asking))
        nearest = searcher(self.vectors, self.metric, self.device)
        nearest_asking = searcher(asking, self.metric, self.device) if asked else nearest
        while True:
            seeds = asking[rng.integers(0, len(asking), STEPS_AHEAD * self.seeds)]
            # A line a step, its seeds' lists end to end.
            found = nearest(seeds, size).reshape(STEPS_AHEAD, -1)
            if asked:
                askers = nearest_asking(seeds, near).reshape(STEPS_AHEAD, -1)
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


def searcher(among: Floats, metric: str, device: torch.device) -> Callable[[Floats, int], Rows]:
    """What finds the rows of `among` nearest to vectors: (n, k), the nearest first.

    Exact on every device; a GPU that waited for FAISS on the processor would stand still.
    """
    if device == CPU:
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        return lambda asked, k: faiss.knn(asked, among, k, metric=kind)[1]
    there = torch.from_numpy(among).to(device)

    def search(asked: Floats, k: int) -> Rows:
        scores = similarity(torch.from_numpy(asked).to(device), there, metric)
        return scores.topk(k, dim=1).indices.cpu().numpy()

    return search
