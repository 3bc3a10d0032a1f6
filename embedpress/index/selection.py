"""Which rows a search may find, in the form that FAISS takes: a bitmap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError
from embedpress.index.rerank import map_array

Mask = NDArray[np.bool_]


class Selection:
    """Some rows of an index.

    Parameters
    ----------
    mask : ndarray of shape (rows,), bool

    Attributes
    ----------
    count : int
        Rows that are selected.
    selector : faiss.IDSelectorBitmap
        A bit a row.
    """

    def __init__(self, mask: Mask) -> None:
        self.count = int(mask.sum())
        # FAISS keeps a pointer only.
        self._bits = np.packbits(mask, bitorder="little")
        bitmap: Any = faiss.IDSelectorBitmap
        self.selector = bitmap(self._bits)


def write_deleted(path: Path, deleted: Mask) -> None:
    """Write which rows are deleted: a bit a row, the first one lowest, as a .npy file."""
    with path.open("xb") as file:
        np.save(file, np.packbits(deleted, bitorder="little"))


def read_deleted(path: Path, rows: int, count: int) -> Mask:
    """Which of `rows` rows are deleted.

    Raises
    ------
    FormatError
        The file is not one of `rows` rows, `count` of them deleted.
    """
    bits = map_array(path, (-(-rows // 8),), np.dtype(np.uint8))
    mask = np.unpackbits(bits, count=rows, bitorder="little").astype(bool)
    if mask.sum() != count:
        raise FormatError(f"{path} marks {mask.sum()} rows, its manifest says {count}")
    return mask
