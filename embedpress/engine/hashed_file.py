"""A file to write to whose checksum is taken on the way."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


class HashedFile:
    """Counts and hashes what is written; whoever opened the file closes it.

    Parameters
    ----------
    file : BinaryIO
        Open for writing, at its end.
    size : int
        Bytes that it holds already.
    start : int
        How many of them, at the front, are not hashed.
    digest : hashlib's object, optional
        That of the others.
    """

    closed = False

    def __init__(
        self,
        file: BinaryIO,
        size: int = 0,
        start: int = 0,
        digest: hashlib._Hash | None = None,
    ) -> None:
        self._file = file
        self.size, self.start = size, start
        self.digest = digest or hashlib.sha256()

    def write(self, data: bytes | NDArray[Any]) -> int:
        """Add bytes, or those of an array that is contiguous."""
        view = data.data if isinstance(data, np.ndarray) else memoryview(data)
        if not view.nbytes:
            return 0
        flat = view.cast("B")
        self._file.write(flat)
        self.digest.update(flat)
        self.size += view.nbytes
        return view.nbytes

    def head(self, data: bytes) -> None:
        """Write the front, which is not hashed: before all else, or again with as many bytes."""
        if not self.size:
            self.size = self.start = len(data)
        elif len(data) != self.start:
            raise ValueError(f"the front has {self.start} bytes, not {len(data)}")
        self._file.seek(0)
        self._file.write(data)
        self._file.seek(self.size)

    def tell(self) -> int:
        """Bytes so far."""
        return self.size

    def flush(self) -> None:
        """Hand all bytes to the system."""
        self._file.flush()

    def close(self) -> None:
        """Nothing: writers of formats close what they are given."""
