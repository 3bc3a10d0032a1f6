"""An index folder as something an evaluation can search: hits as rows of its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.errors import MismatchError
from embedpress.evaluate.exact import Floats, Ids
from embedpress.index.search import open_index
from embedpress.onnx.compressor import OnnxCompressor

SPARE = 10
"""Hits beyond k that are asked for at first, since some are held-out queries themselves."""


class FolderIndex:
    """An index folder over some rows, of which others than the base's are passed over.

    Parameters
    ----------
    path : str or Path
    compressor : OnnxCompressor
    ids : pyarrow.Array
        Of the base.

    Raises
    ------
    MismatchError
        The index lacks rows of the base, or belongs to another compressor.
    """

    def __init__(self, path: str | Path, compressor: OnnxCompressor, ids: pa.Array) -> None:
        self._index = open_index(path, compressor)
        manifest = self._index.manifest
        self.form: str = manifest.what
        self.factory: str = manifest.factory
        self.reranks: str | None = None
        if manifest.rerank != "none":
            self.reranks = f"{manifest.rerank} rerank tier"
        elif self._index.reranks:
            self.reranks = "reranker"
        ivf: Any = self._index.faiss
        self.n_lists = int(getattr(ivf, "nlist", 0))
        self.nprobe: int | None = int(ivf.nprobe) if self.n_lists else None
        row_of = {one: row for row, one in enumerate(ids.to_pylist())}
        held = self._index.table["id"].to_pylist()
        self._base_row = np.array([row_of.get(one, -1) for one in held], np.int64)
        if (self._base_row >= 0).sum() != len(row_of):
            raise MismatchError(
                f"the index at {path} does not hold all {len(row_of):,} vectors that are searched: "
                "give one that was built of these embeddings"
            )

    def search(self, queries: Floats, k: int, *, nprobe: int | None, rerank: bool) -> Ids:
        """Base rows of the first `k` hits, -1 where there are fewer."""
        found = np.full((len(queries), k), -1, np.int64)
        todo = np.arange(len(queries))
        wanted = k + (SPARE if (self._base_row < 0).any() else 0)
        while len(todo):
            wanted = min(wanted, len(self._index))
            hits = self._index.search(queries[todo], wanted, nprobe=nprobe, rerank=rerank).rows
            rows = np.where(hits >= 0, self._base_row[hits], -1)
            # Base rows move to the front in their order.
            order = np.argsort(rows < 0, axis=1, kind="stable")
            found[todo] = np.take_along_axis(rows, order, axis=1)[:, :k]
            # All hits were there, and still too few of them in the base.
            short = (found[todo] < 0).any(axis=1) & (hits >= 0).all(axis=1)
            todo = todo[short]
            if wanted == len(self._index):
                break
            wanted *= 4
        return found
