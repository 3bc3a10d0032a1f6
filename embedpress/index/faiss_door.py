"""The door to FAISS's files: every size in one is compared with the file before FAISS reads it.

FAISS trusts what it reads more or less, by its version: forged sizes have it ask for all memory,
forged links of a graph read elsewhere or go round for ever.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError, first_line

_FLAT = (b"IxFI", b"IxF2", b"IxFl")
_HALF = 4
"""FAISS's ScalarQuantizer::QT_fp16."""


def read_index(path: Path, flags: int) -> Any:
    """FAISS's index of a file, after a look at the file's layout.

    Raises
    ------
    FormatError
        What :func:`check_layout` or FAISS refuses.
    """
    check_layout(path)
    try:
        return faiss.read_index(str(path), flags)
    except Exception as error:  # FAISS raises RuntimeError, and MemoryError on absurd sizes
        raise FormatError(f"{path} is not an index FAISS can read: {first_line(error)}") from None


def check_layout(path: Path) -> None:
    """Walk through an index file of the kinds that embedpress builds, but for its vectors.

    Raises
    ------
    FormatError
        Of another kind, or with sizes, links or lists that do not fit together.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(path, data).index()
    except FormatError:
        raise
    except (OSError, ValueError, struct.error) as error:
        raise FormatError(f"{path} is not an index FAISS can read: {error}") from None


class _Walk:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def index(self) -> None:
        kind = self._kind()
        d, n = self._header()
        if kind in _FLAT:
            self._need(self._skip(4) == n * d, "vectors")
        elif kind == b"IxPq":
            size = self._quantizer(d)
            self._need(self._skip(1) == n * size, "codes")
            self._numbers("<i?i")
        elif kind in (b"IwPQ", b"IwFl"):
            self._inverted(kind, d, n)
        else:
            raise FormatError(
                f"{self._path} is an index of the kind {kind!r}, which embedpress does not build"
            )
        self._need(self._at == len(self._data), "end")

    def _inverted(self, kind: bytes, d: int, n: int) -> None:
        lists, probes = self._numbers("<QQ")
        self._need(0 < lists < 2**31 and 0 < probes < 2**31, "lists")
        self._centroids(d, lists)
        self._need(self._numbers("<b") == (0,) and self._skip(8) == 0, "direct map")
        size = 4 * d
        if kind == b"IwPQ":
            residual, size = self._numbers("<?Q")
            self._need(not residual and self._quantizer(d) == size, "codes")
        self._need(self._kind() == b"ilar", "lists")
        self._need(self._numbers("<QQ") == (lists, size), "lists")
        form = self._kind()
        sizes = self._array("<u8")
        if form == b"sprs":
            self._need(len(sizes) % 2 == 0 and bool((sizes[::2] < lists).all()), "lists")
            sizes = sizes[1::2]
        else:
            self._need(form == b"full" and len(sizes) == lists, "lists")
        self._need(bool((sizes <= n).all()) and int(sizes.sum()) == n, "lists")
        self._at += n * (size + 8)

    def _centroids(self, d: int, lists: int) -> None:
        kind = self._kind()
        graph = kind == b"IHNs"
        self._need(self._header() == (d, lists), "centroids")
        if graph:
            self._graph(lists)
            self._need(self._kind() == b"IxSQ" and self._header() == (d, lists), "centroids")
            form, _, _, width, size = self._numbers("<iifQQ")
            self._need((form, width, size) == (_HALF, d, 2 * d), "centroids")
            self._skip(4)
            self._need(self._skip(1) == lists * size, "centroids")
        else:
            self._need(kind in _FLAT and self._skip(4) == lists * d, "centroids")

    def _graph(self, n: int) -> None:
        """Links of an HNSW graph: by node and level, all to nodes of that level."""
        chances, sums = self._array("<f8"), self._array("<i4").astype(np.int64)
        levels, starts = self._array("<i4").astype(np.int64), self._array("<u8").astype(np.int64)
        links = self._array("<i4")
        entry, top, _, breadth, _ = self._numbers("<iiiii")
        sound = (
            0 < len(chances) < len(sums) < 256
            and sums[0] == 0
            and (np.diff(sums) >= 0).all()
            and len(levels) == n
            and len(starts) == n + 1
            and ((levels > 0) & (levels < len(sums))).all()
            and starts[0] == 0
            and starts[-1] == len(links)
        )
        self._need(bool(sound), "graph")
        sound = (
            (np.diff(starts) == sums[levels]).all()
            and ((links >= -1) & (links < n)).all()
            and 0 <= entry < n
            and 0 <= top < levels[entry]
            and 0 < breadth <= 2**16
        )
        self._need(bool(sound), "graph")
        # A node of no such level would be left through the links of the next one.
        place = np.arange(len(links)) - np.repeat(starts[:-1], np.diff(starts))
        level = np.searchsorted(sums, place, side="right") - 1
        self._need(bool((levels[links[links >= 0]] > level[links >= 0]).all()), "graph")

    def _quantizer(self, d: int) -> int:
        """A product quantizer; its bytes a code."""
        width, parts, bits = self._numbers("<QQQ")
        self._need(width == d and bits == 8 and 0 < parts <= d and d % parts == 0, "codebooks")
        self._need(self._skip(4) == 256 * d, "codebooks")
        return int(parts)

    def _header(self) -> tuple[int, int]:
        d, n, _, _, trained, metric = self._numbers("<iqqq?i")
        self._need(0 < d <= 2**20 and 0 <= n < 2**53 and trained and metric in (0, 1), "header")
        return d, n

    def _kind(self) -> bytes:
        self._at += 4
        return bytes(self._data[self._at - 4 : self._at])

    def _numbers(self, form: str) -> tuple[Any, ...]:
        self._at += struct.calcsize(form)
        self._need(self._at <= len(self._data), "end")
        return struct.unpack_from(form, self._data, self._at - struct.calcsize(form))

    def _skip(self, width: int) -> int:
        """Pass over an array of items of so many bytes; how many there are."""
        (count,) = self._numbers("<Q")
        self._need(count <= (len(self._data) - self._at) // width, "end")
        self._at += count * width
        return int(count)

    def _array(self, form: str) -> NDArray[Any]:
        kind = np.dtype(form)
        count = self._skip(kind.itemsize)
        return np.frombuffer(
            self._data[self._at - count * kind.itemsize : self._at], kind, count=count
        )

    def _need(self, held: bool, what: str) -> None:
        if not held:
            raise FormatError(
                f"{self._path} is not an index FAISS can read: its {what} cannot be so"
            )
