"""The compressor's reranker at work: first hits reordered by their codes, with no finer vectors."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]

_BLOCK = 64 << 20
"""Bytes of candidates that are compared at once."""


class RerankingCompressor(Protocol):
    """What is asked of a compressor, :class:`embedpress.onnx.compressor.OnnxCompressor` for one."""

    metric: str

    def rerank_documents(self, codes: Any, /) -> Floats:
        """Vectors (n, w) of codes."""

    def rerank_queries(self, X: Any, /) -> Floats:
        """Vectors (n, w) of query embeddings, scored against these by the metric."""


def reranked_scores(
    compressor: RerankingCompressor, embeddings: Floats, rows: Ints, codes: Codes
) -> Floats:
    """Scores of candidates; see :class:`embedpress.autoencoder.reranker.Reranker`.

    Parameters
    ----------
    compressor : RerankingCompressor
    embeddings : ndarray of shape (n_queries, d), float32
    rows : ndarray of shape (n_queries, n), int64
        Each query's candidates; -1 for none.
    codes : ndarray of shape (n_queries, n, code_size), uint8
        Of the candidates.

    Returns
    -------
    ndarray of shape (n_queries, n), float32
        Larger is nearer, but for "l2": squared distances. Infinitely far where there is none.
    """
    l2 = compressor.metric == "l2"
    scores = np.full(rows.shape, np.inf if l2 else -np.inf, np.float32)
    if not rows.size:
        return scores
    queries = compressor.rerank_queries(embeddings)
    step = max(1, _BLOCK // (4 * queries.shape[1] * rows.shape[1]))
    for low in range(0, len(rows), step):
        part, asked = rows[low : low + step], queries[low : low + step]
        # What several queries found passes the network once.
        _, first, places = np.unique(part, return_index=True, return_inverse=True)
        documents = compressor.rerank_documents(
            codes[low : low + step].reshape(part.size, -1)[first]
        )
        near = documents[places.reshape(part.shape)]
        found = np.matmul(near, asked[:, :, None])[..., 0]
        if l2:
            norms = np.einsum("qnd,qnd->qn", near, near)
            found = np.maximum(norms - 2 * found + np.square(asked).sum(1, keepdims=True), 0)
        there = part >= 0
        scores[low : low + step][there] = found[there]
    return scores
