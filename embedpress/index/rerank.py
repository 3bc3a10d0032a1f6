"""The rerank tier: a finer form of every vector on disk, which reorders the first hits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError
from embedpress.vectors.files import atomic_path

Floats = NDArray[np.float32]
FORMS = ("none", "int8", "float16", "float32")
VECTORS, SCALES = "rerank.npy", "rerank_scales.npy"


def write_rerank(
    folder: Path, form: str, count: int, dim: int, blocks: Iterable[Floats]
) -> list[str]:
    """Write the tier, block after block in the order of the index's rows.

    Parameters
    ----------
    folder : Path
    form : {"int8", "float16", "float32"}
        "int8" keeps one float32 scale a vector beside it.
    count, dim : int
    blocks : iterable of ndarray of shape (n, dim), float32

    Returns
    -------
    list of str
        Names of the files written.
    """
    dtype = np.dtype(form)
    with atomic_path(folder / VECTORS) as path, atomic_path(folder / SCALES) as scale_path:
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count, dim))
        scales = np.lib.format.open_memmap(
            scale_path, mode="w+", dtype=np.float32, shape=(count if form == "int8" else 0,)
        )
        low = 0
        for block in blocks:
            high = low + len(block)
            if form == "int8":
                scale = np.abs(block).max(axis=1) / 127
                safe = np.where(scale > 0, scale, 1)
                stored[low:high] = np.rint(block / safe[:, None])
                scales[low:high] = scale
            else:
                stored[low:high] = block
            low = high
        stored.flush()
        scales.flush()
    return [VECTORS, SCALES]


class RerankTier:
    """A memory-mapped tier: rows are read only where a search hit them.

    Parameters
    ----------
    folder : Path
        The index folder.
    form : {"int8", "float16", "float32"}
    count, dim : int
        As the index's manifest says; the files must agree.
    """

    def __init__(self, folder: Path, form: str, count: int, dim: int) -> None:
        self.form = form
        self._stored = _mapped(folder / VECTORS)
        self._scales = _mapped(folder / SCALES)
        scale_count = count if form == "int8" else 0
        if (
            self._stored.shape != (count, dim)
            or self._stored.dtype != np.dtype(form)
            or self._scales.shape != (scale_count,)
            or self._scales.dtype != np.float32
        ):
            raise FormatError(f"{folder}: the rerank tier does not fit the index: build it again")

    def rows(self, rows: NDArray[np.int64]) -> Floats:
        """Vectors (n, dim), float32, of index rows."""
        block = self._stored[rows].astype(np.float32)
        if self.form == "int8":
            block *= self._scales[rows][:, None]
        return block

    def rescore(self, query: Floats, rows: NDArray[np.int64], metric: str) -> Floats:
        """Scores of one unit-scale query against rows; for "l2", squared distances."""
        block = self.rows(rows)
        if metric == "l2":
            return np.square(block - query).sum(axis=1)
        scores: Floats = block @ query
        if metric == "cosine":
            scores = scores / np.maximum(np.linalg.norm(block, axis=1), 1e-12)
        return scores


def _mapped(path: Path) -> NDArray[Any]:
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path} cannot be read: {error}") from None
    return mapped
