"""Rows in the order of their inverted lists, in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from embedpress.errors import FormatError
from embedpress.index.lists import Codes, Ints, ListSource
from embedpress.index.unfinished import GrowingFiles, Unfinished

PARTS = "parts"
_PART, _PARTS = 128 << 20, 64


class SortedPart(ListSource):
    """Rows sorted by their lists, in a file: sizes of the lists, codes, rows.

    Parameters
    ----------
    path : Path
    start, stop : int
        Where in it the part lies.
    n_lists, code_size : int
    """

    def __init__(self, path: Path, start: int, stop: int, n_lists: int, code_size: int) -> None:
        self.code_size = code_size
        self.sizes = np.fromfile(path, np.int64, n_lists, offset=start)
        self._path, self._codes_at = path, start + 8 * n_lists
        if self.sizes.min() < 0 or stop - self._codes_at != self.sizes.sum() * (code_size + 8):
            raise FormatError(f"{path} is not what was written: delete its folder")
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])

    def read(self, low: int, high: int) -> tuple[Codes, Ints]:
        """See :class:`ListSource`."""
        start, stop = int(self._starts[low]), int(self._starts[high])
        n, width = stop - start, self.code_size
        rows_at = self._codes_at + int(self._starts[-1]) * width
        codes = np.fromfile(self._path, np.uint8, n * width, offset=self._codes_at + start * width)
        rows = np.fromfile(self._path, np.int64, n, offset=rows_at + 8 * start)
        return codes.reshape(n, width), rows


@dataclass
class PartWriter:
    """Collects assigned rows, and writes them sorted in parts that fit in memory.

    Parameters
    ----------
    growth : GrowingFiles
        The file of the parts; each is noted when it is written.
    n_lists, code_size : int
    budget : int
        Bytes that the rows of a part may take.
    """

    growth: GrowingFiles
    n_lists: int
    code_size: int
    budget: int
    _held: list[tuple[Ints, Codes, Ints]] = field(default_factory=list)
    _bytes: int = 0

    def add(self, lists: Ints, codes: Codes, rows: Ints) -> None:
        """Take rows; a part that is full is sorted and written."""
        size = _bytes_of(len(rows), self.code_size)
        if self._held and self._bytes + size > self.budget:
            self._write()
        self._held.append((lists, codes, rows))
        self._bytes += size

    def finish(self) -> list[SortedPart]:
        """All parts, those of earlier runs first."""
        if self._held:
            self._write()
        if not self.growth.finished:
            self.growth.finish(self.growth.done)
        path = self.growth.paths[0]
        ends = sorted({0, *(mark.files[path.name][1] for mark in self.growth.held)})
        return [
            SortedPart(path, start, stop, self.n_lists, self.code_size)
            for start, stop in pairwise(ends)
        ]

    def _write(self) -> None:
        lists, codes, rows = (np.concatenate(arrays) for arrays in zip(*self._held, strict=True))
        self._held, self._bytes = [], 0
        order = np.argsort(lists, kind="stable")
        file = self.growth.files[0]
        file.write(np.bincount(lists, minlength=self.n_lists).astype(np.int64))
        file.write(codes[order])
        file.write(rows[order])
        self.growth.mark(self.growth.done + len(rows))


def assigned_parts(
    work: Unfinished,
    n_lists: int,
    code_size: int,
    blocks: Callable[[int], Iterable[Codes]],
    assign: Callable[[Codes], Ints],
    *,
    rows: int,
    budget: int,
    first_row: int = 0,
) -> list[SortedPart]:
    """Rows in parts, by the lists they belong to; parts of an earlier run stay.

    Parameters
    ----------
    work : Unfinished
    n_lists, code_size : int
    blocks : callable
        Gives the stored form (n, code_size) of the rows from a number on, in blocks.
    assign : callable
        Gives the list (n,) of each.
    rows : int
        How many there are.
    budget : int
        Bytes of memory that the rows of a part may take. Parts are smaller where that costs
        little, so that a kill costs little.
    first_row : int
        The number that the first row has in the index.
    """
    with work.growing(PARTS, work.place / PARTS) as growth:
        at_most = max(_PART, _bytes_of(rows, code_size) // _PARTS)
        writer = PartWriter(growth, n_lists, code_size, min(budget, at_most))
        if not growth.finished:
            low = growth.done
            for block in blocks(low):
                numbers = np.arange(first_row + low, first_row + low + len(block))
                writer.add(assign(block), block, numbers)
                low += len(block)
        return writer.finish()


def _bytes_of(rows: int, code_size: int) -> int:
    # Sorted copies take the same again.
    return 2 * rows * (code_size + 16)
