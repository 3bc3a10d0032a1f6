"""What every reader gives: the rows of one dataset, in order, a block at a time."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpress.errors import FormatError, InputError
from embedpress.vectors.check import check_dtype
from embedpress.vectors.manifest import MAX_DIM


@dataclass(frozen=True)
class Block:
    """Some rows as they are stored: values are not checked yet, ids None are row numbers."""

    values: npt.NDArray[Any]
    ids: pa.Array | None = None
    metadata: pa.Table | None = None


class Source(Protocol):
    """The rows of one dataset, whatever its format."""

    kind: str
    dim: int
    count: int
    metadata_columns: list[str]

    def blocks(self, start: int, stop: int, rows: int, columns: Sequence[str]) -> Iterator[Block]:
        """Yield rows `start` to `stop` in blocks of at most `rows`, with metadata `columns`."""
        ...

    def ids(self, start: int, stop: int) -> Iterator[pa.Array]:
        """Yield the ids of rows `start` to `stop` alone."""
        ...


class ArraySource:
    """A matrix on disk, mapped into memory; what was read is not kept there."""

    kind = "embeddings"

    def __init__(
        self,
        array: npt.NDArray[Any],
        dim: int,
        decode: Callable[[npt.NDArray[Any], int], npt.NDArray[Any]] | None = None,
    ) -> None:
        self.dim = dim
        self.count = len(array)
        self.metadata_columns: list[str] = []
        self._array = array
        self._decode = decode

    def blocks(self, start: int, stop: int, rows: int, columns: Sequence[str]) -> Iterator[Block]:
        """Yield slices of the matrix; nothing is read before it is looked at."""
        for low in range(start, stop, rows):
            part = self._array[low : min(low + rows, stop)]
            yield Block(part if self._decode is None else self._decode(part, low))
            let_go(self._array.base)

    def ids(self, start: int, stop: int) -> Iterator[pa.Array]:
        """Yield row numbers."""
        yield row_numbers(start, stop)


def row_numbers(start: int, stop: int) -> pa.Array:
    """Return the ids of rows that have none of their own."""
    return pa.array(np.arange(start, stop, dtype=np.int64))


def map_matrix(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, *, fortran: bool = False
) -> npt.NDArray[Any]:
    """Map a matrix that lies at `offset` of a file, after checking that it fits there."""
    size = path.stat().st_size
    need = offset + shape[0] * shape[1] * dtype.itemsize
    if size < need:
        raise FormatError(f"{path} is truncated: {size} bytes where its header needs {need}")
    try:
        order: Literal["C", "F"] = "F" if fortran else "C"
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        matrix: npt.NDArray[Any] = np.ndarray(shape, dtype, mapped, offset, order=order)
        return matrix
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be mapped into memory: {error}") from None


def let_go(mapped: object) -> None:
    """Give back the memory of a map's pages; a page that is looked at again is read again."""
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def check_shape(name: str, shape: tuple[int, ...], dtype: np.dtype[Any] | None = None) -> None:
    """Raise `InputError` unless an array of this shape and dtype can be vectors."""
    if dtype is not None:
        check_dtype(dtype, what=f"{name}: the values")
    if len(shape) != 2:
        raise InputError(f"{name} must be 2-d, of shape (rows, dimensions), not {len(shape)}-d")
    if min(shape) < 0:
        raise FormatError(f"{name} has a negative size in its header: {shape}")
    if min(shape) == 0:
        raise InputError(f"{name} is empty: shape {shape}")
    if shape[1] > MAX_DIM:
        raise InputError(f"{name} has {shape[1]} dimensions, at most {MAX_DIM} can be used")
