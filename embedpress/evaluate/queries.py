"""Single queries: which lost the most, and what human judgements say of the hits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpress.errors import InputError
from embedpress.evaluate.exact import Ids
from embedpress.evaluate.metrics import Judgements, PerQuery, mean_with_ci, mrr, ndcg_at_k
from embedpress.evaluate.result import RelevanceRow, WorstQuery

WORST = 10
SHOWN = 3
TEXT_LENGTH = 160


def worst_queries(
    truth: Ids,
    found: Ids,
    recall: PerQuery,
    base_texts: Sequence[str] | None,
    query_texts: Sequence[str] | None,
    *,
    whole: bool = False,
) -> list[WorstQuery]:
    """The queries of lowest recall, lowest first.

    Parameters
    ----------
    truth : ndarray, shape (nq, k), int64
    found : ndarray, shape (nq, at least k), int64
    recall : ndarray, shape (nq,), float64
    base_texts, query_texts : sequence of str or None
        Row numbers stand in for base texts that are not given.
    whole : bool
        Do not shorten them.

    Returns
    -------
    list of WorstQuery
        At most ten, none of recall 1.
    """
    order = np.argsort(recall, kind="stable")[:WORST]
    k = truth.shape[1]
    length = None if whole else TEXT_LENGTH
    return [
        WorstQuery(
            row=int(row),
            text=_shortened(query_texts[row], length) if query_texts is not None else None,
            recall=float(recall[row]),
            lost=_shown(truth[row], found[row, :k], base_texts, length),
            intruders=_shown(found[row, :k], truth[row], base_texts, length),
        )
        for row in order
        if recall[row] < 1
    ]


def relevance_row(
    name: str, size: int, found: Ids, judgements: Judgements, k: int, seed: int
) -> RelevanceRow:
    """nDCG@k and MRR of a search over the queries that have a relevant document.

    Raises
    ------
    InputError
        If no query has one.
    """
    ndcg, rank = ndcg_at_k(found, judgements, k), mrr(found, judgements, k)
    judged = np.isfinite(ndcg)
    if not judged.any():
        raise InputError("no query has a relevant document among the judgements")
    return RelevanceRow(
        name,
        size,
        int(judged.sum()),
        *mean_with_ci(ndcg[judged], seed=seed),
        *mean_with_ci(rank[judged], seed=seed),
    )


def _shown(ids: Ids, without: Ids, texts: Sequence[str] | None, length: int | None) -> list[str]:
    rows = [int(i) for i in ids if i >= 0 and i not in without][:SHOWN]
    return [_shortened(texts[i], length) if texts is not None else f"row {i}" for i in rows]


def _shortened(text: str, length: int | None) -> str:
    if length is None:
        return str(text)
    flat = " ".join(str(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
