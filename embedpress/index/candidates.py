"""Scores of the first hits of a scan, by a second and finer look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]

OVERSAMPLE = 5
"""Hits for one that is wanted which a reranker looks at: among more of them it finds no more."""
RERANKER_WEIGHT = 0.8
"""Of a reranker's score, the rest being the scan's. What a reranker learnt by heart of the vectors
it was trained on misleads it on others, and the plainer score holds against that."""
_BLOCK = 64 << 20
"""Bytes of candidates that are compared at once."""


@runtime_checkable
class RerankingCompressor(Protocol):
    """A compressor that may have a reranker of codes, as
    :class:`embedpress.onnx.compressor.OnnxCompressor`."""

    metric: str
    reranks: bool

    def rerank_documents(self, codes: Any, /) -> Floats:
        """Vectors (n, w) of codes."""

    def rerank_queries(self, X: Any, /) -> Floats:
        """Vectors (n, w) of query embeddings, scored against these by the metric."""


def candidate_scores(
    queries: Floats, rows: Ints, vectors_of: Callable[[Ints], Floats], *, l2: bool
) -> Floats:
    """Scores of each query's candidates.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, dim), float32
    rows : ndarray of shape (n_queries, n), int64
        -1 for none.
    vectors_of : callable
        Gives the vectors (m, dim), float32, of rows (m,), which rise and differ.
    l2 : bool
        By squared distance in place of the inner product.

    Returns
    -------
    ndarray of shape (n_queries, n), float32
        Larger is nearer, but for `l2`. Infinitely far where there is none.
    """
    worst = np.float32(np.inf if l2 else -np.inf)
    scores = np.full(rows.shape, worst, np.float32)
    step = max(1, _BLOCK // max(1, rows.shape[1] * queries.shape[1] * 4))
    for low in range(0, len(rows), step):
        part, asked = rows[low : low + step], queries[low : low + step]
        # Each row is looked at once, and in the order of the file, whoever asks for it.
        wanted, places = np.unique(np.maximum(part, 0), return_inverse=True)
        near = vectors_of(wanted)[places.reshape(part.shape)]
        if l2:
            near -= asked[:, None]
            found = np.einsum("qnd,qnd->qn", near, near)
        else:
            found = np.matmul(near, asked[:, :, None])[..., 0]
        scores[low : low + step] = np.where(part >= 0, found, worst)
    return scores


def reranked_scores(
    compressor: RerankingCompressor,
    embeddings: Floats,
    rows: Ints,
    scanned: Floats,
    codes_of: Callable[[Ints], Codes],
) -> Floats:
    """Scores of candidates by the compressor's reranker and the scan, from their codes alone.

    Parameters
    ----------
    compressor : RerankingCompressor
        With a reranker, see :class:`embedpress.autoencoder.reranker.Reranker`.
    embeddings : ndarray of shape (n_queries, d), float32
    rows : ndarray of shape (n_queries, n), int64
    scanned : ndarray of shape (n_queries, n), float32
        The scan's scores.
    codes_of : callable
        Gives the codes (m, code_size) of rows (m,).

    Returns
    -------
    ndarray of shape (n_queries, n), float32
        As :func:`candidate_scores` gives them.
    """
    again = candidate_scores(
        compressor.rerank_queries(embeddings),
        rows,
        lambda wanted: compressor.rerank_documents(codes_of(wanted)),
        l2=compressor.metric == "l2",
    )
    return of_both(scanned, again)


def of_both(scanned: Floats, reranked: Floats) -> Floats:
    """One score of a scan's and a reranker's, which are on the same scale where they start."""
    return RERANKER_WEIGHT * reranked + (1 - RERANKER_WEIGHT) * scanned
