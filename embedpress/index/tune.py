"""How many lists a search must visit to find what a scan of all codes finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.exact import without_own

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

AGREEMENT = 0.99
"""Share of the first hits of an exhaustive scan that the visited lists must hold.

Recall is then at most .01 below that of the scan.
"""
DEPTH = 10
_SCANNED = 2 * 10**9
_FEWEST, MOST_QUERIES = 200, 500


def n_queries(count: int) -> int:
    """Queries to tune with: as many as can be scanned against all vectors in reasonable time."""
    return min(count, MOST_QUERIES, max(_FEWEST, _SCANNED // count))


def first_hits(
    flat: Any, blocks: Iterable[NDArray[np.uint8]], queries: Floats, depth: int, first_row: int = 0
) -> tuple[Floats, Ints]:
    """The first hits of a scan of vectors, a block at a time.

    Parameters
    ----------
    flat : faiss.IndexPQ or faiss.IndexFlat
        Trained and empty.
    blocks : iterable of ndarray of shape (n, code_size), uint8
        The stored form of the vectors.
    queries : ndarray of shape (n_queries, d), float32
    depth : int
    first_row : int
        The number of the first vector.

    Returns
    -------
    scores : ndarray of shape (n_queries, depth), float32
    rows : ndarray of shape (n_queries, depth), int64
        -1 where there were fewer.
    """
    heap = _heap(flat, len(queries), depth)
    low = first_row
    for block in blocks:
        flat.add_sa_codes(block)
        scores, rows = flat.search(queries, depth)
        heap.add_result(scores, np.where(rows >= 0, rows + low, -1))
        flat.reset()
        low += len(block)
    heap.finalize()
    return heap.D, heap.I


def joined_hits(flat: Any, hits: Iterable[tuple[Floats, Ints]]) -> Ints:
    """The first of the hits of several scans, each (n_queries, depth)."""
    parts = list(hits)
    heap = _heap(flat, *parts[0][1].shape)
    for scores, rows in parts:
        heap.add_result(scores, rows)
    heap.finalize()
    found: Ints = heap.I
    return found


def _heap(flat: Any, n_queries: int, depth: int) -> Any:
    largest = flat.metric_type == faiss.METRIC_INNER_PRODUCT
    return faiss.ResultHeap(n_queries, depth, keep_max=largest)


def tune_nprobe(
    index: Any, queries: Floats, own: Ints, truth: Ints, *, agreement: float = AGREEMENT
) -> tuple[int, float]:
    """The fewest lists with which a search agrees with the scan.

    Parameters
    ----------
    index : faiss.IndexIVF
    queries : ndarray of shape (n_queries, d), float32
    own : ndarray of shape (n_queries,), int64
        The row that each query was made from, which it may not find; -1 for none.
    truth : ndarray of shape (n_queries, depth), int64
        What a scan of all vectors found, likewise.
    agreement : float
        Share of `truth` to be found.

    Returns
    -------
    nprobe : int
    float
        The share that it finds.
    """

    def found(nprobe: int) -> float:
        options: Any = faiss.SearchParametersIVF
        rows = index.search(queries, truth.shape[1] + 1, params=options(nprobe=nprobe))[1]
        hits = without_own(rows, own)
        shared = sum(
            len(set(a[a >= 0].tolist()) & set(b.tolist())) for a, b in zip(truth, hits, strict=True)
        )
        return float(shared / max(1, int((truth >= 0).sum())))

    low, high = 0, 1
    reached = found(high)
    while reached < agreement and high < index.nlist:
        low, high = high, min(2 * high, index.nlist)
        reached = found(high)
    while high - low > 1:
        middle = (low + high) // 2
        share = found(middle)
        if share >= agreement:
            high, reached = middle, share
        else:
            low = middle
    return high, reached
