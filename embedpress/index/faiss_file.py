"""FAISS's file formats, written a block at a time: the vectors never lie in memory at once.

FAISS itself writes all but the vectors: an empty index is serialised, and the vectors are put
where its format has them. The result is, byte for byte, what ``faiss.write_index`` writes for the
same index in memory.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError
from embedpress.index.lists import ListSource, merged_lists, total_sizes
from embedpress.index.manifest import Frame
from embedpress.index.parts import PARTS
from embedpress.index.unfinished import GrowingFiles, Unfinished

Rows = NDArray[np.uint8]

_EMPTY_LISTS = struct.calcsize("<4sQQ4sQ")
_PQ_TAIL = struct.calcsize("<i?i")
_BLOCK = 1 << 20
_SIZES = "sizes"


def write_flat(
    growth: GrowingFiles, index: Any, rows: int, blocks: Callable[[int], Iterable[Rows]]
) -> Frame:
    """Write an exhaustive index (``IndexPQ`` or ``IndexFlat``).

    Parameters
    ----------
    growth : GrowingFiles
        The file, as far as it is written.
    index : faiss.IndexPQ or faiss.IndexFlat
        Trained and empty.
    rows : int
        Vectors in all.
    blocks : callable
        Gives the stored form (n, code_size) of the vectors from a row on, uint8, in blocks.

    Returns
    -------
    Frame
    """
    head, tail = _flat_ends(index, rows)
    if not growth.finished:
        file, done = growth.files[0], growth.done
        if not file.size:
            file.write(head)
        for block in blocks(done):
            file.write(np.ascontiguousarray(block))
            done += len(block)
            growth.reached(done)
        file.write(tail)
        growth.finish(done)
    return _frame(head, rows * index.sa_code_size(), tail)


def write_inverted(
    work: Unfinished,
    path: Path,
    index: Any,
    sources: Callable[[], Sequence[ListSource]],
    budget: int,
) -> tuple[Frame, NDArray[np.int64]]:
    """Write an inverted file (``IndexIVFPQ`` or ``IndexIVFFlat``).

    Parameters
    ----------
    work : Unfinished
    path : Path
        The file to make.
    index : faiss.IndexIVF
        With its coarse quantizer, and empty.
    sources : callable
        Gives what is in the lists: entries of the first source come first in each list. Called
        where the file is not whole.
    budget : int
        Bytes of memory for the entries of lists that are merged at once.

    Returns
    -------
    Frame
    ndarray of shape (n_lists,), int64
        Entries of each list.
    """
    sizes_path = work.place / _SIZES
    with work.growing("index", path, sizes_path) as growth:
        if not growth.finished:
            found = sources()
            file, listed = growth.files
            sizes = total_sizes(found)
            file.head(inverted_head(index, sizes))
            if not listed.size:
                listed.write(sizes)
            merged = merged_lists(found, budget, growth.done)
            for number, (codes, ids) in enumerate(merged, growth.done + 1):
                file.write(codes)
                file.write(ids)
                growth.reached(number)
            growth.finish(index.nlist)
    work.drop(PARTS)
    sizes = work.array(_SIZES, "i8", (index.nlist,))
    return rewrite_head(path, index, sizes), sizes


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


def rewrite_head(path: Path, index: Any, sizes: NDArray[np.int64]) -> Frame:
    """Put a changed ``nprobe`` into an inverted file that is written already."""
    head = inverted_head(index, sizes)
    with path.open("r+b") as file:
        file.write(head)
    return _frame(head, int(sizes.sum()) * (index.code_size + 8), b"")


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
