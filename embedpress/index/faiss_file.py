"""FAISS's file formats, written a block at a time: the vectors never lie in memory at once.

FAISS itself writes all but the vectors: an empty index is serialised, and the vectors are put
where its format has them. The result is, byte for byte, what ``faiss.write_index`` writes for the
same index in memory.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError
from embedpress.index.lists import ListSource, merged_lists, total_sizes
from embedpress.index.manifest import Frame

Rows = NDArray[np.uint8]

_EMPTY_LISTS = struct.calcsize("<4sQQ4sQ")
_PQ_TAIL = struct.calcsize("<i?i")
_BLOCK = 1 << 20


def write_flat(path: Path, index: Any, rows: int, blocks: Iterable[Rows]) -> Frame:
    """Write an exhaustive index (``IndexPQ`` or ``IndexFlat``).

    Parameters
    ----------
    path : Path
        The file to make.
    index : faiss.IndexPQ or faiss.IndexFlat
        Trained and empty.
    rows : int
        Vectors to come.
    blocks : iterable of ndarray of shape (n, code_size), uint8
        The stored form of the vectors, `rows` in all.

    Returns
    -------
    Frame
    """
    head, tail = _flat_ends(index, rows)
    with path.open("xb") as file:
        file.write(head)
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)
        file.write(tail)
    return _frame(head, rows * index.sa_code_size(), tail)


def write_inverted(path: Path, index: Any, sources: Sequence[ListSource], budget: int) -> Frame:
    """Write an inverted file (``IndexIVFPQ`` or ``IndexIVFFlat``).

    Parameters
    ----------
    path : Path
        The file to make.
    index : faiss.IndexIVF
        With its coarse quantizer, and empty.
    sources : list of ListSource
        What is in the lists: entries of the first source come first in each list.
    budget : int
        Bytes of memory for the entries of lists that are merged at once.

    Returns
    -------
    Frame
    """
    sizes = total_sizes(sources)
    head = inverted_head(index, sizes)
    with path.open("xb", buffering=_BLOCK) as file:
        file.write(head)
        for codes, ids in merged_lists(sources, budget):
            file.write(codes.data)
            file.write(ids.data)
    return _frame(head, int(sizes.sum()) * (index.code_size + 8), b"")


def inverted_head(index: Any, sizes: NDArray[np.int64]) -> bytes:
    """All of an inverted file that comes before the entries of its lists."""
    data = _serialised(index, int(sizes.sum()))
    lists = struct.pack("<4sQQ", b"ilar", index.nlist, index.code_size)
    filled = np.flatnonzero(sizes)
    if len(filled) > index.nlist // 2:
        listed = struct.pack("<4sQ", b"full", index.nlist) + sizes.astype("<u8").tobytes()
    else:
        pairs = np.stack([filled, sizes[filled]], axis=1)
        listed = struct.pack("<4sQ", b"sprs", pairs.size) + pairs.astype("<u8").tobytes()
    return data[: len(data) - _EMPTY_LISTS] + lists + listed


def rewrite_head(path: Path, frame: Frame, index: Any, sizes: NDArray[np.int64]) -> Frame:
    """Put a changed ``nprobe`` into an inverted file that is written already."""
    head = inverted_head(index, sizes)
    with path.open("r+b") as file:
        file.write(head)
    return _frame(head, frame.size, b"")


def read_rows(path: Path, frame: Frame, code_size: int, rows: int) -> Iterator[Rows]:
    """The vectors of an exhaustive index, at most `rows` at a time."""
    with path.open("rb") as file:
        file.seek(frame.start)
        left = frame.size
        while left:
            block = _exactly(file, min(left, rows * code_size))
            left -= len(block)
            yield np.frombuffer(block, np.uint8).reshape(-1, code_size)


def frame_of(path: Path, index: Any, rows: int) -> Frame:
    """The frame of an exhaustive index that another program wrote, given it empty.

    Raises
    ------
    FormatError
        The file is longer or shorter than such a file is.
    """
    head, tail = _flat_ends(index, rows)
    frame = _frame(head, rows * index.sa_code_size(), tail)
    if path.stat().st_size != len(head) + frame.size + len(tail):
        raise FormatError(f"{path} is not laid out as an index of {rows} vectors: build it again")
    return frame


def check_frame(path: Path, frame: Frame) -> None:
    """Compare all but the vectors with their checksum, and the size of the file.

    Raises
    ------
    FormatError
        It was changed.
    """
    digest = hashlib.sha256()
    size = path.stat().st_size
    if frame.start + frame.size <= size:
        with path.open("rb") as file:
            for start, stop in ((0, frame.start), (frame.start + frame.size, size)):
                file.seek(start)
                while start < stop:
                    block = _exactly(file, min(_BLOCK, stop - start))
                    digest.update(block)
                    start += len(block)
    if digest.hexdigest() != frame.sha256:
        raise FormatError(f"{path} was changed since it was built: build it again")


def _flat_ends(index: Any, rows: int) -> tuple[bytes, bytes]:
    """What comes before and after the vectors of an exhaustive index."""
    data = _serialised(index, rows)
    tail = data[len(data) - _PQ_TAIL :] if isinstance(index, faiss.IndexPQ) else b""
    head = data[: len(data) - len(tail) - 8]
    # A product quantizer's codes are counted in bytes, floats in groups of four.
    unit = 1 if isinstance(index, faiss.IndexPQ) else 4
    return head + struct.pack("<Q", rows * index.sa_code_size() // unit), tail


def _serialised(index: Any, rows: int) -> bytes:
    index.ntotal = rows
    try:
        data: bytes = faiss.serialize_index(index).tobytes()
    finally:
        index.ntotal = 0
    return data


def _frame(head: bytes, size: int, tail: bytes) -> Frame:
    return Frame(len(head), size, hashlib.sha256(head + tail).hexdigest())


def _exactly(file: BinaryIO, size: int) -> bytes:
    block = file.read(size)
    if len(block) != size:
        raise FormatError(f"{file.name} ends too early: build the index again")
    return block
