"""The rows of an index as another database takes them: ids, vectors, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedpress.errors import UsageError
from embedpress.index.manifest import IndexManifest, read_index_manifest
from embedpress.index.scan import Scan, query_form
from embedpress.index.stored import StoredIndex
from embedpress.onnx.compressor import OnnxCompressor

Floats = NDArray[np.float32]

FORMS = ("latents", "embeddings")
_LISTS = 256


@dataclass(frozen=True)
class Block:
    """Some rows: ids and metadata with "id" first, vectors (n, dim)."""

    table: pa.Table
    vectors: Floats


class IndexRows:
    """The rows of an index that are not deleted, in their order.

    Parameters
    ----------
    folder : Path
    compressor : OnnxCompressor
        That of the index.
    form : {"latents", "embeddings"}
        What the codes stand for as the index scans them, to be asked with the query encoder; or
        embeddings restored from them, to be asked with plain ones.

    Attributes
    ----------
    count, dim : int
    metric : {"cosine", "ip", "l2"}
        By which the vectors are compared with what :meth:`queries` gives.

    Raises
    ------
    UsageError, FormatError
    MismatchError
        The compressor is not the one that made the codes.
    """

    def __init__(self, folder: Path, compressor: OnnxCompressor, form: str = "latents") -> None:
        if form not in FORMS:
            raise UsageError(f"form={form!r} must be one of {', '.join(FORMS)}")
        self.manifest: IndexManifest = read_index_manifest(folder)
        self.manifest.check_compressor(folder, compressor.path, compressor.fingerprint)
        self.form = form
        self.compressor = compressor
        self.scan = Scan(compressor, self.manifest.what, self.manifest.dim)
        stored = StoredIndex(folder, self.manifest)
        self._live = np.flatnonzero(~stored.deleted)
        self.count = len(self._live)
        self._table = stored.table()
        self._codes = _by_row(stored, self.scan.code_size)
        self.dim = compressor.dim if form == "embeddings" else self.scan.latent_dim
        self.metric = compressor.metric
        if form == "latents" and self.metric == "cosine":
            # The scan compares by inner product; lengths of latents are part of the score.
            self.metric = "ip"

    @property
    def columns(self) -> pa.Schema:
        """Types of ids and metadata, "id" first."""
        return self._table.schema

    def ids(self, start: int, stop: int) -> pa.Array:
        """Ids of the rows `start` to `stop`."""
        return self._table["id"].combine_chunks().take(pa.array(self._live[start:stop]))

    def block(self, start: int, stop: int) -> Block:
        """The rows `start` to `stop`."""
        rows = self._live[start:stop]
        codes = self._codes[rows]
        values = codes if self.manifest.what == "codes" else codes.view(np.float32)
        if self.form == "latents":
            vectors = self.scan.latents(values)
        elif self.manifest.what == "codes":
            vectors = self.compressor.decode(values)
        else:
            vectors = self.compressor.inverse_transform(values)
        return Block(self._table.take(pa.array(rows)), vectors)

    def blocks(self, rows: int, start: int = 0) -> Iterator[Block]:
        """All rows from `start` on, `rows` at a time."""
        for low in range(start, self.count, rows):
            yield self.block(low, min(low + rows, self.count))


def query_vectors(
    compressor: OnnxCompressor, what: str, form: str, embeddings: Floats, dim: int
) -> Floats:
    """Embeddings of questions as the database takes them.

    Parameters
    ----------
    compressor : OnnxCompressor
    what : {"codes", "latents"}
        What the index holds.
    form : {"latents", "embeddings"}
        What was pushed.
    embeddings : ndarray of shape (n, d), float32
    dim : int
        Floats of a pushed vector.
    """
    if form == "embeddings":
        return embeddings
    asked = query_form(compressor, what, embeddings)
    # A scan of codes takes a query once a stage, and their latents are sums over the stages; of
    # nested latents the first floats were pushed.
    return np.ascontiguousarray(asked[:, :dim])


def _by_row(stored: StoredIndex, code_size: int) -> NDArray[np.uint8]:
    """The stored form of all rows (rows, code_size): codes only, as small as the index."""
    index = stored.open()
    everything = np.ones(stored.rows, bool)
    found = np.empty((stored.rows, code_size), np.uint8)
    if isinstance(index, faiss.IndexIVF):
        lists = stored.lists(index, everything)
        for low in range(0, index.nlist, _LISTS):
            codes, rows = lists.read(low, min(low + _LISTS, index.nlist))
            found[rows] = codes
        return found
    low = 0
    for block in stored.codes(index, everything):
        found[low : low + len(block)] = block
        low += len(block)
    return found
