"""The rerank tier: a finer form of every vector on disk, which reorders the first hits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import EmbedpressError, FormatError, InputError
from embedpress.vectors.files import atomic_path
from embedpress.vectors.readers import read_npy_header

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

    Raises
    ------
    InputError
        A number is too large for float16.
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
                if form == "float16" and np.abs(block).max() > np.finfo(np.float16).max:
                    raise InputError("the embeddings are too large for float16: take float32")
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
        scale_count = count if form == "int8" else 0
        self._stored = _mapped(folder / VECTORS, (count, dim), np.dtype(form))
        self._scales = _mapped(folder / SCALES, (scale_count,), np.dtype(np.float32))

    def rows(self, rows: NDArray[np.int64]) -> Floats:
        """Vectors (n, dim), float32, of index rows."""
        block = self._stored[rows].astype(np.float32)
        if self.form == "int8":
            block *= self._scales[rows][:, None]
        return block

    def rescore(self, query: Floats, rows: NDArray[np.int64], metric: str) -> Floats:
        """Scores of one unit-scale query against rows; for "l2", squared distances."""
        block = self.rows(rows)
        scores: Floats
        if metric == "l2":
            scores = np.square(block - query).sum(axis=1)
            return scores
        scores = block @ query
        if metric == "cosine":
            scores = scores / np.maximum(np.linalg.norm(block, axis=1), 1e-12)
        return scores


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            *head, offset = read_npy_header(file, str(path))
        size = offset + math.prod(shape) * dtype.itemsize
        if head != [shape, False, dtype] or path.stat().st_size != size:
            raise FormatError(f"{path} does not fit the index: build it again")
        mapped: NDArray[Any] = (
            np.memmap(path, dtype, "r", offset, shape)
            if math.prod(shape)
            else np.empty(shape, dtype)
        )
    except EmbedpressError:
        raise
    except Exception as error:  # the parser of the header raises whatever it meets
        raise FormatError(f"{path} cannot be read: {error}") from None
    return mapped
