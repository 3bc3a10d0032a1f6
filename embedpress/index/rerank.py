"""The rerank tier: a finer form of every vector on disk, which reorders the first hits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.engine.hashed_file import HashedFile
from embedpress.errors import EmbedpressError, FormatError, InputError
from embedpress.index.candidates import candidate_scores
from embedpress.index.unfinished import GrowingFiles
from embedpress.vectors.files import check_own
from embedpress.vectors.readers import read_npy_header

Floats = NDArray[np.float32]
FORMS = ("none", "int8", "float16", "float32")

Stored = tuple[NDArray[Any], Floats]
"""Vectors as a tier keeps them, and a float32 scale each under "int8"."""


def stored_form(vectors: Floats, form: str) -> Stored:
    """Vectors (n, dim), float32, as a tier of "int8", "float16" or "float32" keeps them.

    Raises
    ------
    InputError
        A number is too large for float16.
    """
    if form == "int8":
        scale = np.abs(vectors).max(axis=1, initial=0) / np.float32(127)
        safe = np.where(scale > 0, scale, 1)
        return np.rint(vectors / safe[:, None]).astype(np.int8), scale
    if form == "float16" and np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        raise InputError("the embeddings are too large for float16: take float32")
    return vectors.astype(form), np.empty(0, np.float32)


def write_tier(
    growth: GrowingFiles, form: str, rows: int, dim: int, blocks: Callable[[int], Iterable[Stored]]
) -> None:
    """Write a tier.

    Parameters
    ----------
    growth : GrowingFiles
        Its files, as far as they are written: vectors, and scales.
    form : {"int8", "float16", "float32"}
    rows, dim : int
        What it is to hold.
    blocks : callable
        Gives the vectors from a row on, as the tier keeps them, in blocks.
    """
    if growth.finished:
        return
    vectors, scales = growth.files
    if not vectors.size:
        _begin_npy(vectors, (rows, dim), np.dtype(form))
        _begin_npy(scales, (rows if form == "int8" else 0,), np.dtype(np.float32))
    done = growth.done
    for block, scale in blocks(done):
        vectors.write(np.ascontiguousarray(block))
        scales.write(np.ascontiguousarray(scale))
        done += len(block)
        growth.reached(done)
    growth.finish(done)


class RerankTier:
    """A memory-mapped tier: rows are read only where a search hit them.

    Parameters
    ----------
    path, scales_path : Path
    form : {"int8", "float16", "float32"}
    rows, dim : int
        As the index's manifest says; the files must agree.
    """

    def __init__(self, path: Path, scales_path: Path, form: str, rows: int, dim: int) -> None:
        self.form = form
        scaled = rows if form == "int8" else 0
        self._stored = map_array(path, (rows, dim), np.dtype(form))
        self._scales = map_array(scales_path, (scaled,), np.dtype(np.float32))

    def stored(self, rows: NDArray[np.int64] | slice) -> Stored:
        """Rows as they lie in the files, with their scales (none but under "int8")."""
        scales = self._scales[rows] if self.form == "int8" else np.empty(0, np.float32)
        return self._stored[rows], scales

    def rows(self, rows: NDArray[np.int64]) -> Floats:
        """Vectors (n, dim), float32, of index rows."""
        stored, scales = self.stored(rows)
        block: Floats = stored.astype(np.float32)
        if self.form == "int8":
            block *= scales[:, None]
        return block

    def scores(self, queries: Floats, rows: NDArray[np.int64], metric: str) -> Floats:
        """Scores of candidates.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim), float32
        rows : ndarray of shape (n_queries, n), int64
            Each query's candidates; -1 for none.
        metric : {"cosine", "ip", "l2"}

        Returns
        -------
        ndarray of shape (n_queries, n), float32
            Larger is nearer, but for "l2": squared distances. Infinitely far where there is none.
        """
        if metric != "cosine":
            return candidate_scores(queries, rows, self.rows, l2=metric == "l2")
        asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return candidate_scores(asked, rows, self._directions, l2=False)

    def _directions(self, rows: NDArray[np.int64]) -> Floats:
        vectors = self.rows(rows)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def _begin_npy(file: HashedFile, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Begin a .npy file; its rows are written behind the header, so that none stay in memory."""
    described = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def map_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Map a .npy file that must hold an array of this shape and dtype, and nothing else.

    Raises
    ------
    FormatError
        It does not.
    """
    try:
        check_own(path)
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
