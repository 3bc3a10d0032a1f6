"""How well a compressor keeps neighbours: its score, and the held-out figures of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.autoencoder.record import kept_record, nested_recall, runs
from embedpress.autoencoder.sizing import DEFAULT_TARGET
from embedpress.evaluate.exact import without_own

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor


def start_method(compressor: Compressor, tower: str) -> str:
    """What a tower is before training.

    Returns
    -------
    {"PCA", "OPQ", "PRQ", "scan"}
        PCA for latents, for the reranker a scan of the codes alone. A code with a codebook a
        slice starts as optimized product quantization in its parametric form (Ge et al., 2013),
        any other as a product-residual quantizer.
    """
    if tower == "latents":
        return "PCA"
    if tower == "reranker":
        return "scan"
    return "OPQ" if compressor.code_groups() == compressor.code_size_ else "PRQ"


def held_out_recall(compressor: Compressor) -> dict[str, dict[str, Any]]:
    """recall@10 on held-out queries of each tower, beside that of its start at equal bytes.

    Returns
    -------
    dict of str to dict
        For "latents", "codes" and "reranker", where it was measured: ``trained`` and ``start``, in
        [0, 1]; ``start_method``, see :func:`start_method`; ``fell_back``, True where
        training did not beat the start, whose weights were kept. After
        :meth:`~embedpress.Compressor.partial_fit`, ``trained`` is by the queries of the
        last call and ``start`` by those of the first.
    """
    figures: dict[str, dict[str, Any]] = {}
    fell_back = compressor.fell_back_
    for name, records in compressor.history_.items():
        trained = kept_record(runs(records)[-1], compressor.monitor)
        if "recall" in trained and "recall" in records[0]:
            figures[name] = {
                "trained": trained["recall"],
                "start": records[0]["recall"],
                "start_method": start_method(compressor, name),
                "fell_back": fell_back[name],
            }
    return figures


def nested_recalls(compressor: Compressor) -> list[dict[str, Any]]:
    """recall@10 on held-out queries of each nested size, the smallest first.

    Returns
    -------
    list of dict
        ``n_components``; ``start``, that of as many principal components; ``trained``. Empty
        where nothing is nested or was measured.
    """
    records = compressor.history_.get("latents", [])
    if not records:
        return []
    trained = kept_record(runs(records)[-1], compressor.monitor)
    names = {int(size): nested_recall(size) for size in compressor.nested_sizes}
    return [
        {"n_components": size, "start": records[0][name], "trained": trained[name]}
        for size, name in names.items()
        if name in trained and name in records[0]
    ]


def figures(compressor: Compressor) -> dict[str, Any]:
    """All that was measured in training, but for the history.

    Returns
    -------
    dict
        ``held_out``, see :func:`held_out_recall`; ``nested``, see :func:`nested_recalls`;
        ``sizes``, see the estimator's `sizes_`;
        ``target_recall`` and ``target_reached``, None where `code_size` was given.
    """
    target = reached = None
    if compressor.sizes_:
        target = compressor.target_recall or DEFAULT_TARGET
        trained = {size["code_size"]: size["trained"] for size in compressor.sizes_}
        reached = trained[compressor.code_size_] >= target
    return {
        "held_out": held_out_recall(compressor),
        "nested": nested_recalls(compressor),
        "sizes": compressor.sizes_,
        "target_recall": target,
        "target_reached": reached,
    }


def leave_one_out_recall(
    unit: NDArray[np.float32],
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    *,
    metric: str,
    seed: int,
    k: int = 10,
    max_queries: int = 1000,
) -> float:
    """Share of the true `k` neighbours among the first `k` found, oneself left out.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float32
        Embeddings at unit scale, which give the truth.
    stored : ndarray of shape (n, w), float32
        What the search scores against.
    queries : ndarray of shape (n, w), float32
        Query latents of the same rows.
    metric : {"cosine", "ip", "l2"}
    seed : int
        Draws the rows that ask, where there are more than `max_queries`.
    k, max_queries : int

    Returns
    -------
    float
        In [0, 1].
    """
    n = len(unit)
    k = min(k, n - 1)
    if k < 1:
        return 1.0
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:max_queries])
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    truth = without_own(faiss.knn(unit[rows], unit, k + 1, metric=kind)[1], rows)
    found = without_own(faiss.knn(queries[rows], stored, k + 1, metric=kind)[1], rows)
    return float(
        np.mean([len(np.intersect1d(f, t)) / k for f, t in zip(found, truth, strict=True)])
    )
