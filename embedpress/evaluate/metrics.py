"""Figures of a search: recall@k, nDCG@k, MRR, and their confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.exact import true_neighbors

__all__ = [
    "candidate_recall",
    "judgements_of",
    "mean_with_ci",
    "mrr",
    "ndcg_at_k",
    "recall_at_k",
    "true_neighbors",
]

PerQuery = NDArray[np.float64]


def recall_at_k(found: Any, truth: Any) -> PerQuery:
    """Share of the true neighbours among the first `k` found, a query at a time.

    Parameters
    ----------
    found : array_like, shape (nq, at least k), int
        Ids, best first; the first `k` columns count, -1 never does.
    truth : array_like, shape (nq, k), int
        Ids of the true neighbours in any order; -1 stands for "no such neighbour" and is left
        out of the share.

    Returns
    -------
    ndarray, shape (nq,), float64

    Raises
    ------
    InputError
        Shapes that do not match, or a query without a true neighbour.

    Notes
    -----
    Ids are compared, never scores: a row that ties with the last true neighbour but is not
    listed in `truth` counts as a miss.
    """
    f, t = np.asarray(found), np.asarray(truth)
    if f.ndim != 2 or t.ndim != 2 or f.dtype.kind not in "iu" or t.dtype.kind not in "iu":
        raise InputError("found and truth must be matrices of integer ids")
    if len(f) != len(t) or t.shape[1] == 0 or f.shape[1] < t.shape[1]:
        raise InputError(f"found {f.shape} needs the rows and at least the columns of {t.shape}")
    return candidate_recall(f[:, : t.shape[1]], t)


def candidate_recall(found: Any, truth: Any) -> PerQuery:
    """Share of the true neighbours anywhere among the hits, a query at a time.

    It is the recall after a first search for candidates that are then put in their true order.

    Parameters
    ----------
    found : array_like, shape (nq, any), int
        Ids in any order; -1 never counts.
    truth : array_like, shape (nq, k), int
        As in :func:`recall_at_k`.

    Returns
    -------
    ndarray, shape (nq,), float64

    Raises
    ------
    InputError
        A query without a true neighbour.
    """
    f, t = np.asarray(found), np.asarray(truth)
    known = t >= 0
    if not known.any(axis=1).all():
        row = int(np.argmin(known.any(axis=1)))
        raise InputError(f"query {row} has no true neighbour: leave it out of found and truth")
    hits = np.empty(len(t), np.int64)
    rows = max(1, 2**24 // (t.shape[1] * max(1, f.shape[1])))
    for s in range(0, len(t), rows):
        part = slice(s, s + rows)
        same = (t[part, :, None] == f[part, None, :]).any(axis=2)
        hits[part] = (same & known[part]).sum(axis=1)
    return np.asarray(hits / known.sum(axis=1), np.float64)


def mean_with_ci(
    x: Any, *, confidence: float = 0.95, seed: int = 0, resamples: int = 1000
) -> tuple[float, float, float]:
    """Mean of per-query figures with a bootstrap percentile interval.

    Parameters
    ----------
    x : array_like, shape (n,), float
    confidence : float
        Share of the resampled means inside the interval, between 0 and 1.
    seed : int
    resamples : int

    Returns
    -------
    mean, low, high : float

    Raises
    ------
    InputError
        Empty or not finite (drop queries without a defined figure first).
    UsageError
        `confidence` or `resamples` out of range.

    Notes
    -----
    Efron's percentile bootstrap. Resampling n rows is drawing the counts of the distinct
    values from a multinomial, which is how it is done: recall@10 has 11 distinct values.
    """
    a = np.asarray(x, np.float64)
    if a.ndim != 1 or not len(a) or not np.isfinite(a).all():
        raise InputError("need a non-empty list of finite figures; drop undefined (NaN) ones first")
    if not 0 < confidence < 1 or resamples < 1:
        raise UsageError("confidence must lie between 0 and 1 and resamples be at least 1")
    values, counts = np.unique(a, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, 2**21 // len(values))
    means = np.concatenate(
        [
            rng.multinomial(len(a), counts / len(a), size=min(step, resamples - s)) @ values
            for s in range(0, resamples, step)
        ]
    ) / len(a)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(a.mean()), float(low), float(high)


Judgements = Sequence[Mapping[Any, float]]


def judgements_of(query: Any, document: Any, grade: Any, *, queries: int) -> Judgements:
    """Relevance judgements given as three columns, as one mapping a query.

    Parameters
    ----------
    query : array_like, shape (m,), int
        Row number of the query.
    document : array_like, shape (m,)
        Id of the judged document, of the kind the search returns.
    grade : array_like, shape (m,), float
        0 is not relevant.
    queries : int
        Number of queries.

    Returns
    -------
    list of dict
        document id -> grade, of length `queries`; a pair judged twice keeps its highest grade.

    Raises
    ------
    InputError
        Columns of other lengths, or row numbers that cannot be.
    """
    q, d, g = np.asarray(query), np.asarray(document), np.asarray(grade, np.float64)
    if not q.ndim == d.ndim == g.ndim == 1 or not len(q) == len(d) == len(g):
        raise InputError("query, document and grade must be columns of one length")
    if len(q) and (q.dtype.kind not in "iu" or q.min() < 0 or q.max() >= queries):
        raise InputError(f"judged queries must be row numbers below {queries}")
    out: list[dict[Any, float]] = [{} for _ in range(queries)]
    for row, doc, value in zip(q.tolist(), d.tolist(), g.tolist(), strict=True):
        out[row][doc] = max(value, out[row].get(doc, value))
    return out


def _grades(found: Any, judgements: Judgements, k: int) -> PerQuery:
    if k < 1:
        raise UsageError(f"k is {k}: give 1 or more")
    rows = np.asarray(found)
    if rows.ndim != 2 or len(rows) != len(judgements):
        raise InputError(f"{len(judgements)} queries are judged but found has shape {rows.shape}")
    out = np.zeros((len(rows), min(k, rows.shape[1])))
    for i, (ids, judged) in enumerate(zip(rows[:, :k].tolist(), judgements, strict=True)):
        seen: set[Any] = set()
        for j, doc in enumerate(ids):
            # An id found twice earns its grade once.
            if doc not in seen:
                out[i, j] = max(0.0, judged.get(doc, 0.0))
                seen.add(doc)
    return out


def ndcg_at_k(found: Any, judgements: Judgements, k: int = 10) -> PerQuery:
    """Normalised discounted cumulative gain of each query.

    Parameters
    ----------
    found : array_like, shape (nq, any)
        Document ids, best first; the first `k` columns count.
    judgements : sequence of mapping, length nq
        Document id -> grade (0 or less: not relevant); see :func:`judgements_of` for columns.
    k : int

    Returns
    -------
    ndarray, shape (nq,), float64
        NaN for a query without a relevant document, for which it is not defined.

    Notes
    -----
    The gain is the grade and the discount log2(1 + rank), as in trec_eval and BEIR
    (Järvelin and Kekäläinen 2002).
    """
    grades = _grades(found, judgements, k)
    discount = 1 / np.log2(np.arange(k) + 2)
    gained = grades @ discount[: grades.shape[1]]
    ideal = [sorted((g for g in j.values() if g > 0), reverse=True)[:k] for j in judgements]
    best = np.array([float(np.dot(top, discount[: len(top)])) for top in ideal])
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(best > 0, gained / best, np.nan), np.float64)


def mrr(found: Any, judgements: Judgements, k: int = 10) -> PerQuery:
    """Reciprocal rank of the first relevant document of each query, 0 if not in the first `k`.

    Parameters
    ----------
    found, judgements, k
        As in :func:`ndcg_at_k`; every grade above 0 is relevant.

    Returns
    -------
    ndarray, shape (nq,), float64
        NaN for a query without a relevant document. The mean over queries is the MRR.
    """
    relevant = _grades(found, judgements, k) > 0
    rank = np.where(relevant.any(axis=1), relevant.argmax(axis=1) + 1, np.inf)
    defined = np.array([any(g > 0 for g in j.values()) for j in judgements], dtype=bool)
    return np.where(defined, 1 / rank, np.nan)
