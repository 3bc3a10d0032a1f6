"""One way to turn vectors into bytes with what FAISS offers: a linear map, then a quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError
from embedpress.evaluate.axes import principal_axes
from embedpress.evaluate.exact import Floats, Ids, nearest_in_blocks
from embedpress.evaluate.recipes import Recipe

Codes = NDArray[np.uint8]

BLOCK_ROWS = 16384
RABITQ_QUERY_BITS = 8
ITQ_ROWS = 16384


class Coder:
    """A trained :class:`Recipe`.

    Parameters
    ----------
    recipe : Recipe
    train : ndarray, shape (n, d), float32
    l2 : bool
        Search by Euclidean distance in place of the inner product.
    seed : int

    Raises
    ------
    InputError
        Fewer training rows than centroids.
    """

    def __init__(self, recipe: Recipe, train: Floats, *, l2: bool, seed: int) -> None:
        if recipe.quantizer in ("pq", "rq", "lsq") and len(train) < 256:
            raise InputError(f"{recipe.label} needs 256 training rows or more, not {len(train)}")
        self.recipe = recipe
        self.l2 = l2
        zero = np.zeros(train.shape[1], np.float32)
        mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._base_shift = zero if recipe.shift == "no" else mean
        self._query_shift = mean if recipe.shift == "both" else zero
        self._map = _linear_map(recipe, train, centred=recipe.shift != "no", seed=seed)
        self._index: Any = _empty_index(recipe, l2=l2)
        self._index.train(self._view(train, self._base_shift))

    @property
    def code_size(self) -> int:
        """Bytes of a code."""
        return int(self._index.sa_code_size())

    @property
    def model_bytes(self) -> int:
        """Bytes of the trained index without vectors, and of the linear map before it."""
        import faiss

        map_bytes = 0 if self._map is None else self._map.nbytes
        shift = self._base_shift.nbytes if self.recipe.shift != "no" else 0
        return len(faiss.serialize_index(self._index)) + map_bytes + shift

    def encode(self, x: Floats) -> Codes:
        """Codes of vectors: uint8, shape (n, code_size)."""
        parts = [
            self._index.sa_encode(self._view(x[s : s + BLOCK_ROWS], self._base_shift))
            for s in range(0, len(x), BLOCK_ROWS)
        ]
        return np.concatenate(parts)

    def search(self, codes: Codes, queries: Floats, k: int) -> Ids:
        """Nearest codes of float queries: int64 row numbers, shape (nq, k)."""
        q = self._view(queries, self._query_shift)
        if self.recipe.quantizer == "rabitq":
            return self._search_rabitq(codes, q, k)

        def blocks() -> Iterator[Floats]:
            for s in range(0, len(codes), BLOCK_ROWS):
                yield self._index.sa_decode(codes[s : s + BLOCK_ROWS])

        return nearest_in_blocks(q, blocks(), k, l2=self.l2)[0]

    def _search_rabitq(self, codes: Codes, queries: Floats, k: int) -> Ids:
        # RaBitQ scores by its unbiased estimate, which is not the distance to a decoded vector.
        self._index.reset()
        self._index.add_sa_codes(codes)
        ids = self._index.search(queries, k)[1]
        self._index.reset()
        return np.asarray(ids, np.int64)

    def _view(self, x: Floats, shift: Floats) -> Floats:
        z = x - shift
        if self._map is not None:
            z = z @ self._map
        if self.recipe.unit:
            z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return np.ascontiguousarray(z, np.float32)


def _linear_map(recipe: Recipe, train: Floats, *, centred: bool, seed: int) -> Floats | None:
    import faiss

    d = train.shape[1]
    if recipe.rotate == "opq":
        opq = faiss.OPQMatrix(d, recipe.books, recipe.dims)
        pq = faiss.ProductQuantizer(recipe.dims, recipe.books, 8)
        pq.cp.min_points_per_centroid = 1
        opq.pq = pq
        opq.train(train)
        return _matrix_of(opq)
    basis = principal_axes(train, recipe.dims, centred=centred) if recipe.reduce else None
    if recipe.rotate == "no":
        return basis
    inner = recipe.dims if recipe.reduce else d
    if recipe.rotate == "random":
        turn: Any = faiss.RandomRotationMatrix(inner, recipe.dims)
        turn.init(seed + 1)
    else:
        turn = faiss.ITQMatrix(inner)
        turn.seed = seed + 1
        some = np.random.default_rng(seed).permutation(len(train))[:ITQ_ROWS]
        sample = train[np.sort(some)] - (train.mean(axis=0) if centred else np.float32(0))
        turn.train(np.ascontiguousarray(sample if basis is None else sample @ basis))
    rotation = _matrix_of(turn)
    return rotation if basis is None else basis @ rotation


def _matrix_of(transform: Any) -> Floats:
    import faiss

    a = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
    return np.ascontiguousarray(a.T)


def _empty_index(recipe: Recipe, *, l2: bool) -> Any:
    import faiss

    d = recipe.dims
    kind = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
    if recipe.quantizer == "float":
        return faiss.IndexFlat(d, kind)
    if recipe.quantizer == "sq":
        sq = faiss.ScalarQuantizer
        return faiss.IndexScalarQuantizer(d, {4: sq.QT_4bit, 8: sq.QT_8bit}[recipe.bits], kind)
    if recipe.quantizer == "rabitq":
        extra = [recipe.bits] if recipe.bits > 1 else []
        index: Any = faiss.IndexRaBitQ(d, kind, *extra)
        index.qb = RABITQ_QUERY_BITS
        return index
    if recipe.quantizer in ("rq", "lsq"):
        return _additive_index(recipe, kind)
    # A bit a component is a product quantizer of as many codebooks of two entries.
    books, bits = (d, 1) if recipe.quantizer == "sign" else (recipe.books, 8)
    index = faiss.IndexPQ(d, books, bits, kind)
    index.pq.cp.min_points_per_centroid = 1
    return index


def _additive_index(recipe: Recipe, kind: int) -> Any:
    import faiss

    # As Any, since not all of FAISS's names are in its stubs.
    library: Any = faiss
    residual = recipe.quantizer == "rq"
    name = "IndexProductResidualQuantizer" if residual else "IndexProductLocalSearchQuantizer"
    # No norms are stored: codes are decoded to be scored, so none are needed.
    search = library.AdditiveQuantizer.ST_LUT_nonorm
    books = recipe.books // recipe.splits
    index = getattr(library, name)(recipe.dims, recipe.splits, books, 8, kind, search)
    if residual:
        for split in range(recipe.splits):
            quantizer = library.downcast_AdditiveQuantizer(index.prq.subquantizer(split))
            quantizer.cp.min_points_per_centroid = 1
    return index
