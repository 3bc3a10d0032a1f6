"""How many lists a search must visit to find what a scan of all codes finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.exact import others
from embedpress.index.coarse import visiting

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

AGREEMENT, RESTORED_AGREEMENT = 0.99, 0.993
"""Shares of the first hits of an exhaustive scan that the visited lists must hold.

Recall is then at most .01 below that of the scan. Queries that are restored from codes lie nearer
to the middle of their lists than others do, and find more.
"""
DEPTH = 10
_SCANNED = 2 * 10**9
_FEWEST, MOST_QUERIES = 200, 500
_FEW_LISTS, _WORTH = 32, 1e-3
"""Beyond a few lists, four times as many are not worth their time that hold so little more."""
_ROUNDING = 1e-5


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


def joined_hits(flat: Any, hits: Iterable[tuple[Floats, Ints]]) -> tuple[Floats, Ints]:
    """The first of the hits of several scans, scores and rows, each (n_queries, depth)."""
    parts = list(hits)
    heap = _heap(flat, *parts[0][1].shape)
    for scores, rows in parts:
        heap.add_result(scores, rows)
    heap.finalize()
    return heap.D, heap.I


def _heap(flat: Any, n_queries: int, depth: int) -> Any:
    largest = flat.metric_type == faiss.METRIC_INNER_PRODUCT
    return faiss.ResultHeap(n_queries, depth, keep_max=largest)


def tune_nprobe(
    index: Any,
    queries: Floats,
    own: Ints,
    truth: tuple[Floats, Ints],
    *,
    agreement: float = AGREEMENT,
) -> tuple[int, float]:
    """The fewest lists with which a search agrees with the scan.

    Where no number of lists does, the fewest that find about as much as twice as many and more.

    Parameters
    ----------
    index : faiss.IndexIVF
    queries : ndarray of shape (n_queries, d), float32
    own : ndarray of shape (n_queries,), int64
        The row that each query was made from, which it may not find; -1 for none.
    truth : tuple of ndarray of shape (n_queries, depth + 1), float32 and int64
        Scores and rows that a scan of all vectors found, own ones among them.
    agreement : float
        Share of the scan's hits to be found. Of equal scores one is as good as another.

    Returns
    -------
    nprobe : int
    float
        The share that it finds.
    """
    depth = truth[1].shape[1]
    sign = 1 if index.metric_type == faiss.METRIC_INNER_PRODUCT else -1

    def kept(scores: Floats, rows: Ints) -> Floats:
        """Scores of hits, larger nearer, without own ones."""
        scores = np.where(rows >= 0, sign * scores, -np.inf)
        return scores[others(rows, own)].reshape(len(rows), -1)

    exact = kept(*truth)
    wanted = np.isfinite(exact)
    last = np.where(wanted, exact, np.finfo(np.float32).max).min(axis=1, keepdims=True)
    # A list sums a score up in another order than the scan does.
    enough = last - _ROUNDING * np.abs(last)

    def found(nprobe: int) -> float:
        hits = kept(*index.search(queries, depth, params=visiting(index, nprobe)))
        return float((hits >= enough).sum() / wanted.sum()) if wanted.any() else 1.0

    shares = {1: found(1)}
    high = 1
    while shares[high] < agreement and high < index.nlist:
        if high > _FEW_LISTS and shares[high] - shares[high // 4] < _WORTH:
            break
        high = min(2 * high, index.nlist)
        shares[high] = found(high)
    best = shares[high]
    if best < agreement:
        agreement = best - _WORTH
        high = min(n for n, share in shares.items() if share >= agreement)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        shares[middle] = found(middle)
        low, high = (low, middle) if shares[middle] >= agreement else (middle, high)
    return high, shares[high]
