"""The two forms a compressor gives, latents and codes, as something that can be searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError
from embedpress.evaluate.exact import Floats, Ids, nearest_in_blocks
from embedpress.index.candidates import RerankingCompressor, reranked_scores
from embedpress.index.hits import best_first
from embedpress.threads import faiss_threads

Codes = NDArray[np.uint8]
BLOCK_ROWS = 8192


class Compressor(Protocol):
    """What an evaluation asks of a compressor, :class:`embedpress.onnx.compressor.OnnxCompressor`
    for one.

    Attributes
    ----------
    dim : int
    metric : {"cosine", "ip", "l2"}
    n_components, code_size : int or None
        None where the compressor gives no latents, or no codes.
    """

    dim: int
    metric: str
    n_components: int | None
    code_size: int | None

    def transform(self, X: Any, /) -> Floats:
        """Latents (n, n_components)."""

    def inverse_transform(self, Z: Any, /) -> Floats:
        """Embeddings (n, dim) from latents."""

    def transform_queries(self, X: Any, /) -> Floats:
        """Query latents (n, n_components)."""

    def encode(self, X: Any, /) -> Codes:
        """Codes (n, code_size)."""

    def decode(self, codes: Any, /) -> Floats:
        """Embeddings (n, dim) from codes."""

    def encode_queries(self, X: Any, /) -> Floats:
        """Queries (n, w), scored against codes."""

    def codebooks(self) -> Floats:
        """Centroids (code_size, 256, w / code_size): byte m of a code names one of book m."""


@runtime_checkable
class NestsLatents(Protocol):
    """A compressor that knows beginnings of a latent which are latents too.

    Attributes
    ----------
    latent_sizes : tuple of int
        The whole size, and before it those that are nested in it.
    """

    latent_sizes: tuple[int, ...]


@runtime_checkable
class ReconstructsCodes(Protocol):
    """A compressor whose codes are no product quantizer's: it says itself what they stand for."""

    def reconstruct_codes(self, codes: Any, /) -> Floats:
        """Vectors (n, w) that encoded queries are scored against."""


def in_blocks(function: Callable[[Any], NDArray[Any]], x: Any) -> NDArray[Any]:
    """Apply `function` to a few thousand rows at a time and join the results."""
    blocks = [function(x[s : s + BLOCK_ROWS]) for s in range(0, len(x), BLOCK_ROWS)]
    return np.concatenate(blocks)


def search_latents(
    compressor: Compressor,
    latents: Floats,
    queries: Floats,
    k: int,
    *,
    num_threads: int | None = None,
) -> tuple[Ids, Floats]:
    """Nearest latents of query embeddings by brute force, and their scores.

    -1 where there are fewer than `k`.

    Latents may be cut to a nested size; query latents are then cut alike. They are scored by inner
    product, or by Euclidean distance for the metric "l2".
    """
    q = in_blocks(compressor.transform_queries, queries)
    sizes = compressor.latent_sizes if isinstance(compressor, NestsLatents) else (q.shape[1],)
    if latents.shape[1] not in sizes:
        raise InputError(f"query latents are {q.shape[1]} wide and latents {latents.shape[1]}")
    q = np.ascontiguousarray(q[:, : latents.shape[1]])
    l2 = compressor.metric == "l2"
    return nearest_in_blocks(q, [latents], k, l2=l2, num_threads=num_threads)


def reordered(
    compressor: RerankingCompressor,
    codes: Codes,
    queries: Floats,
    found: Ids,
    scanned: Floats,
    count: int,
) -> Ids:
    """What a search of codes found, its first `count` hits reordered by the reranker."""
    rows = found[:, :count]
    scores = reranked_scores(compressor, queries, rows, scanned[:, :count], codes.__getitem__)
    order = best_first(scores, compressor.metric)
    return np.concatenate([np.take_along_axis(rows, order, 1), found[:, count:]], axis=1)


def search_codes(
    compressor: Compressor,
    codes: Codes,
    queries: Floats,
    k: int,
    *,
    num_threads: int | None = None,
) -> tuple[Ids, Floats]:
    """Nearest codes of query embeddings by brute force, and their scores.

    -1 where there are fewer than `k`.

    Scored by inner product, or by Euclidean distance for the metric "l2": with the compressor's
    `reconstruct_codes` where it has one, else by FAISS's scan of a product quantizer.
    """
    l2 = compressor.metric == "l2"
    q = in_blocks(compressor.encode_queries, queries)
    if isinstance(compressor, ReconstructsCodes):
        reconstruct = compressor.reconstruct_codes

        def blocks() -> Iterator[Floats]:
            for s in range(0, len(codes), BLOCK_ROWS):
                yield reconstruct(codes[s : s + BLOCK_ROWS])

        return nearest_in_blocks(q, blocks(), k, l2=l2, num_threads=num_threads)
    return _scan(compressor.codebooks(), codes, q, k, l2=l2, num_threads=num_threads)


def _scan(
    books: Floats, codes: Codes, queries: Floats, k: int, *, l2: bool, num_threads: int | None
) -> tuple[Ids, Floats]:
    import faiss

    size, entries, width = books.shape
    if codes.shape[1] != size or entries != 256 or queries.shape[1] != size * width:
        raise InputError(
            f"codes {codes.shape}, codebooks {books.shape} and queries {queries.shape} do not "
            "belong together"
        )
    kind = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
    index: Any = faiss.IndexPQ(size * width, size, 8, kind)
    faiss.copy_array_to_vector(np.ascontiguousarray(books, np.float32).ravel(), index.pq.centroids)
    index.is_trained = True
    index.add_sa_codes(np.ascontiguousarray(codes))
    with faiss_threads(num_threads):
        scores, ids = index.search(np.ascontiguousarray(queries, np.float32), k)
    return np.asarray(ids, np.int64), scores
