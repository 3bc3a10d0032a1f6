"""Inverted lists as they are merged from several sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError

Codes = NDArray[np.uint8]
Ints = NDArray[np.int64]


class ListSource:
    """Entries in the order of their lists.

    Attributes
    ----------
    sizes : ndarray of shape (n_lists,), int64
        Entries of each list.
    code_size : int
        Bytes of a vector's stored form.
    """

    sizes: Ints
    code_size: int

    def read(self, low: int, high: int) -> tuple[Codes, Ints]:
        """Codes (n, code_size) and rows (n,) of the lists `low` to `high`, list after list."""
        raise NotImplementedError


class ListsOfFile(ListSource):
    """The lists of an inverted file that FAISS can read.

    Parameters
    ----------
    path : Path
    start : int
        Where in it the entries begin.
    sizes : ndarray of shape (n_lists,), int64
    code_size : int
    renumbered : ndarray of shape (rows,), int64, optional
        New numbers of the rows, -1 for those to leave out.
    """

    def __init__(
        self, path: Path, start: int, sizes: Ints, code_size: int, renumbered: Ints | None = None
    ) -> None:
        self._path = path
        self.code_size = code_size
        self._stored = sizes
        self._at = start + np.concatenate([[0], np.cumsum(sizes)]) * (code_size + 8)
        self._renumbered = renumbered
        self.sizes = sizes
        if renumbered is not None:
            self.sizes = np.array([len(self.read(i, i + 1)[1]) for i in range(len(sizes))])

    def read(self, low: int, high: int) -> tuple[Codes, Ints]:
        """See :class:`ListSource`."""
        n = int(self._at[high] - self._at[low])
        data = np.fromfile(self._path, np.uint8, n, offset=int(self._at[low]))
        if len(data) != n:
            raise FormatError(f"{self._path} ends too early: build the index again")
        codes = [np.empty((0, self.code_size), np.uint8)]
        rows, at = [np.empty(0, np.int64)], 0
        for size in self._stored[low:high].tolist():
            middle, end = at + size * self.code_size, at + size * (self.code_size + 8)
            codes.append(data[at:middle].reshape(size, self.code_size))
            rows.append(np.frombuffer(data[middle:end].tobytes(), np.int64))
            at = end
        found, numbers = np.concatenate(codes), np.concatenate(rows)
        if self._renumbered is None:
            return found, numbers
        if n and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self._renumbered):
            raise FormatError(f"{self._path} names rows that are not there: build it again")
        numbers = self._renumbered[numbers]
        return found[numbers >= 0], numbers[numbers >= 0]


def total_sizes(sources: Sequence[ListSource]) -> Ints:
    """Entries of each list (n_lists,), over all sources."""
    sizes: Ints = np.sum([source.sizes for source in sources], axis=0, dtype=np.int64)
    return sizes


def merged_lists(
    sources: Sequence[ListSource], budget: int, first: int = 0
) -> Iterator[tuple[Codes, Ints]]:
    """Codes and rows of one list after the other, joined over the sources.

    Parameters
    ----------
    sources : list of ListSource
    budget : int
        Bytes of entries that are held at once; one list at the least.
    first : int
        The list to begin with.

    Yields
    ------
    ndarray of shape (n, code_size), uint8
    ndarray of shape (n,), int64
    """
    sizes = total_sizes(sources)
    width = sources[0].code_size
    ends = np.cumsum(sizes) * (width + 8)
    low = first
    while low < len(sizes):
        before = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + budget, side="right")))
        blocks = [source.read(low, high) for source in sources]
        starts = [np.concatenate([[0], np.cumsum(source.sizes[low:high])]) for source in sources]
        for number in range(high - low):
            cuts = [slice(int(s[number]), int(s[number + 1])) for s in starts]
            codes = [block[0][cut] for block, cut in zip(blocks, cuts, strict=True)]
            rows = [block[1][cut] for block, cut in zip(blocks, cuts, strict=True)]
            yield np.concatenate(codes), np.concatenate(rows)
        low = high
