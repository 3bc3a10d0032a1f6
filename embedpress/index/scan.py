"""How a compressor's codes or latents are scanned: the FAISS indexes that hold them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError, InputError, MismatchError
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.vectors import Vectors

Floats = NDArray[np.float32]
Rows = NDArray[np.uint8]

_BLOCK = 16_384


def faiss_metric(metric: str) -> int:
    """FAISS's constant: inner product for "cosine" and "ip", L2 for "l2"."""
    kind: int = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    return kind


class Scan:
    """What FAISS needs to know of a compressor.

    Parameters
    ----------
    compressor : OnnxCompressor
    what : {"codes", "latents"}
    n_components : int, optional
        Floats of the stored latents, where they are nested in the compressor's, all of which are
        taken by default; of no account for codes.

    Attributes
    ----------
    stages : int
        Residual rounds of the quantizer; 1 is plain product quantization.
    latent_dim : int
        Dimensions of a latent.
    dim : int
        Dimensions of a query: for codes, its latent once a stage.
    code_size : int
        Bytes of a vector's stored form.
    """

    def __init__(
        self, compressor: OnnxCompressor, what: str, n_components: int | None = None
    ) -> None:
        self.compressor = compressor
        self.what = what
        self.metric = faiss_metric(compressor.metric)
        self.stages = 1
        if what == "codes":
            self.stages = compressor.config.get("stages") or 1
            self.code_size, _, width = self.books.shape
            self.dim = self.code_size * width
        else:
            self.dim = n_components or compressor.n_components or 0
            self.code_size = 4 * self.dim
        self.latent_dim = self.dim // self.stages

    @cached_property
    def books(self) -> Floats:
        """Codebooks (code_size, 256, slice)."""
        return self.compressor.codebooks()

    def stored(self, values: NDArray[Any]) -> Rows:
        """Codes or latents as FAISS stores them: bytes (n, code_size)."""
        return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), self.code_size)

    def latents(self, values: NDArray[Any]) -> Floats:
        """Latents (n, latent_dim) that codes stand for; latents as they are."""
        if self.what == "latents":
            return values
        found = np.empty((len(values), self.latent_dim), np.float32)
        groups = np.arange(self.code_size)
        for low in range(0, len(values), _BLOCK):
            words = self.books[groups, values[low : low + _BLOCK]]
            parts = words.reshape(len(words), self.stages, self.latent_dim)
            found[low : low + _BLOCK] = parts[:, 0] if self.stages == 1 else parts.sum(axis=1)
        return found

    def flat(self) -> Any:
        """An empty exhaustive index: ``IndexPQ`` over codes, ``IndexFlat`` over latents."""
        if self.what == "latents":
            return faiss.IndexFlat(self.dim, self.metric)
        index = faiss.IndexPQ(self.dim, self.code_size, 8, self.metric)
        faiss.copy_array_to_vector(self.books.ravel(), index.pq.centroids)
        index.is_trained = True
        return index

    def inverted(self, quantizer: Any, n_lists: int) -> Any:
        """An empty inverted file: ``IndexIVFPQ`` over codes, ``IndexIVFFlat`` over latents."""
        index: Any
        if self.what == "latents":
            index = faiss.IndexIVFFlat(quantizer, self.dim, n_lists, self.metric)
        else:
            index = faiss.IndexIVFPQ(quantizer, self.dim, n_lists, self.code_size, 8, self.metric)
            index.by_residual = False
            faiss.copy_array_to_vector(self.books.ravel(), index.pq.centroids)
        # FAISS frees the coarse quantizer with the index only when told that it is its own.
        quantizer.this.disown()
        index.own_fields = True
        index.is_trained = True
        return index

    def assign(self, index: Any, stored: Rows) -> NDArray[np.int64]:
        """The list (n,) of each vector, given in its stored form."""
        values = stored if self.what == "codes" else stored.view(np.float32)
        laid_out = np.tile(self.latents(values), (1, self.stages))
        lists: NDArray[np.int64] = index.quantizer.search(laid_out, 1)[1][:, 0]
        return lists

    def queries(self, embeddings: Floats) -> Floats:
        """Embeddings as queries (n, dim) of the scan."""
        whole = query_form(self.compressor, self.what, embeddings)
        return np.ascontiguousarray(whole[:, : self.dim])

    def restored_queries(self, values: NDArray[Any]) -> Floats:
        """Queries made of codes or latents, by what they restore to."""
        if self.what == "codes":
            return self.queries(self.compressor.decode(values))
        # Latents are centred: zeros stand for the floats that were not kept.
        missing = (self.compressor.n_components or 0) - self.dim
        return self.queries(
            self.compressor.inverse_transform(np.pad(values, ((0, 0), (0, missing))))
        )


def query_form(compressor: OnnxCompressor, what: str, embeddings: Floats) -> Floats:
    """Embeddings as queries of codes (their latents once a stage) or of whole latents."""
    if what == "codes":
        return compressor.encode_queries(embeddings)
    return compressor.transform_queries(embeddings)


def check_origin(compressed: Vectors, compressor: OnnxCompressor) -> None:
    """Refuse vectors that this compressor did not make.

    Raises
    ------
    InputError, MismatchError, FormatError
    """
    if compressed.kind not in ("codes", "latents") or compressed.manifest is None:
        raise InputError(f"{compressed.path} holds {compressed.kind}: compress them first")
    made_by = compressed.manifest.config.get("compressor")
    if made_by != compressor.fingerprint:
        raise MismatchError(
            f"{compressed.path} was compressed by another compressor (fingerprint {made_by}) "
            f"than {compressor.path} ({compressor.fingerprint}): compress again or use that one"
        )
    codes = compressed.kind == "codes"
    sizes = (compressor.code_size,) if codes else compressor.latent_sizes
    if compressed.dim not in sizes:
        given = " or ".join(map(str, sizes))
        raise FormatError(
            f"{compressed.path} has {compressed.dim} values a row, its compressor gives {given}"
        )
