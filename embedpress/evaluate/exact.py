"""Exact search by brute force, which gives the truth that everything else is held against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, UsageError
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_metric, check_vectors

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

BLOCK_ROWS = 65536


def unit_rows(x: Floats) -> Floats:
    """Scale each row to length 1; a row of zeros stays one."""
    norm = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)).astype(np.float32)[:, None]
    return np.asarray(x / np.where(norm > 0, norm, 1), np.float32)


def others(found: Ids, own: Ids) -> NDArray[np.bool_]:
    """Which of the hits (n, k + 1) are not each row's own, or else not the last: k in every row.

    Where rows are repeated, a row may be missing from its own hits.
    """
    # Where there is no hit (-1) there is none of its own, which may be -1 too.
    kept: NDArray[np.bool_] = (found != own[:, None]) | (found < 0)
    kept[kept.all(axis=1), -1] = False
    return kept


def without_own(found: Ids, own: Ids) -> Ids:
    """Hits (n, k + 1) but for each row's own, or else the last one: (n, k)."""
    left: Ids = found[others(found, own)].reshape(len(found), -1)
    return left


def nearest_in_blocks(
    queries: Floats,
    blocks: Iterable[Floats],
    k: int,
    *,
    l2: bool = False,
    num_threads: int | None = None,
) -> tuple[Ids, Floats]:
    """Brute-force search over a base that comes in blocks.

    Parameters
    ----------
    queries : ndarray, shape (nq, d), float32
    blocks : iterable of ndarray, shape (any, d), float32
        The base in row order; only one block is held at a time.
    k : int
        Neighbours a query.
    l2 : bool
        Smallest squared Euclidean distance in place of largest inner product.
    num_threads : int, optional
        FAISS threads for this call.

    Returns
    -------
    ids : ndarray, shape (nq, k), int64
        Row numbers, best first, -1 where the base has fewer than `k` rows.
    scores : ndarray, shape (nq, k), float32
        Inner products, or squared distances when `l2`.

    Notes
    -----
    Equal scores are listed by row number, lowest first. Of rows that tie for place `k`, the
    lowest are kept as far as one FAISS call returns them; a tie is one of float32 scores.
    """
    import faiss

    nq = len(queries)
    kind = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
    ids = np.full((nq, k), -1, np.int64)
    worst = np.inf if l2 else -np.inf
    scores = np.full((nq, k), worst, np.float32)
    queries = np.ascontiguousarray(queries, np.float32)
    first = 0
    with faiss_threads(num_threads):
        for block in blocks:
            # A few more than k, so that rows tied for the last place can be told by number.
            wanted = min(k + 8, len(block))
            s, i = faiss.knn(queries, np.ascontiguousarray(block, np.float32), wanted, metric=kind)
            s = np.concatenate([scores, s], axis=1)
            i = np.concatenate([ids, np.where(i < 0, -1, i + first)], axis=1)
            absent = i < 0
            order = np.lexsort((i, s if l2 else -s, absent), axis=1)[:, :k]
            scores = np.take_along_axis(s, order, axis=1)
            ids = np.take_along_axis(i, order, axis=1)
            first += len(block)
    return ids, scores


def true_neighbors(
    queries: Any, base: Any, k: int, *, metric: str, num_threads: int | None = None
) -> Ids:
    """The exact `k` nearest base rows of each query.

    Parameters
    ----------
    queries, base : array_like, shape (nq, d) and (n, d), float
        `base` may be memory-mapped: it is read in blocks.
    k : int
        1 to `n`.
    metric : {"cosine", "ip", "l2"}
        Largest cosine, largest inner product or smallest Euclidean distance.
    num_threads : int, optional
        FAISS threads for this call.

    Returns
    -------
    ndarray, shape (nq, k), int64
        Row numbers of `base`, nearest first; ties as in :func:`nearest_in_blocks`.

    Raises
    ------
    UsageError
        Unknown metric, or `k` outside 1 to `n`.
    InputError
        Vectors that cannot be compared.
    """
    check_metric(metric)
    q = check_vectors(queries, metric=metric, what="queries")
    base = np.asarray(base)
    if base.ndim != 2:
        raise InputError(f"base must be a matrix, not of shape {base.shape}")
    if not 1 <= k <= len(base):
        raise UsageError(f"k is {k}: with {len(base)} base rows it must be 1 to {len(base)}")
    cosine = metric == "cosine"

    def blocks() -> Iterable[Floats]:
        for start in range(0, len(base), BLOCK_ROWS):
            rows = base[start : start + BLOCK_ROWS]
            block = check_vectors(
                rows, dim=q.shape[1], metric=metric, first_row=start, what="base vectors"
            )
            yield unit_rows(block) if cosine else block

    q = unit_rows(q) if cosine else q
    return nearest_in_blocks(q, blocks(), k, l2=metric == "l2", num_threads=num_threads)[0]
