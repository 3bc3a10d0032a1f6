"""The files of an index as they lie on disk, read a block at a time to be written again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedpress.errors import FormatError
from embedpress.index.faiss_door import read_index
from embedpress.index.faiss_file import frame_of, read_rows
from embedpress.index.lists import ListsOfFile
from embedpress.index.manifest import IndexManifest
from embedpress.index.rerank import RerankTier
from embedpress.index.selection import read_deleted
from embedpress.index.table import ROW_GROUP, read_batches, read_schema, read_table
from embedpress.vectors import sha256_of
from embedpress.vectors.files import check_own

Mask = NDArray[np.bool_]


class StoredIndex:
    """An index folder, to be changed.

    Every file that is read is compared with its checksum first, so that damage is not written on
    under a new one.

    Parameters
    ----------
    folder : Path
    manifest : IndexManifest

    Attributes
    ----------
    deleted : ndarray of shape (rows,), bool
        Rows that are marked as deleted.
    """

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._compared: set[str] = set()
        # No vector takes less than a byte; a count beyond that would ask for all memory.
        index = folder / manifest.files["index"]
        if not index.is_file():
            self._sound("index")
        if manifest.rows > index.stat().st_size:
            raise FormatError(f"{folder} holds fewer than {manifest.rows} vectors: build it again")
        self.deleted = np.zeros(manifest.rows, bool)
        if manifest.deleted:
            path = self._sound("deleted")
            self.deleted = read_deleted(path, manifest.rows, manifest.deleted)

    @property
    def rows(self) -> int:
        """Rows in the files, deleted ones too."""
        return self.manifest.rows

    def table(self, *columns: str) -> pa.Table:
        """Ids and metadata of all rows, or some columns of them."""
        table = read_table(self._sound("ids"), self.rows)
        return table.select(columns) if columns else table

    def schema(self) -> pa.Schema:
        """Columns of ids and metadata."""
        return read_schema(self._sound("ids"))

    def tables(self, keep: Mask) -> Iterator[pa.Table]:
        """Ids and metadata of the rows to keep."""
        low = 0
        for batch in read_batches(self._sound("ids")):
            kept = keep[low : low + len(batch)]
            low += len(batch)
            yield pa.Table.from_batches([batch]).filter(pa.array(kept))

    def open(self) -> Any:
        """FAISS's index without its vectors."""
        return emptied(read_index(self._sound("index"), faiss.IO_FLAG_MMAP))

    def codes(self, index: Any, keep: Mask) -> Iterator[NDArray[np.uint8]]:
        """The stored form of the rows to keep, of an exhaustive index."""
        path, size = self.folder / self.manifest.files["index"], index.sa_code_size()
        frame = self.manifest.frame or frame_of(path, index, self.rows)
        low = 0
        for block in read_rows(path, frame, size, ROW_GROUP):
            yield block[keep[low : low + len(block)]]
            low += len(block)

    def lists(self, index: Any, keep: Mask) -> ListsOfFile:
        """The lists of an inverted file with the rows to keep, numbered anew."""
        path = self.folder / self.manifest.files["index"]
        mapped: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        sizes = np.array([mapped.invlists.list_size(i) for i in range(mapped.nlist)], np.int64)
        start = path.stat().st_size - int(sizes.sum()) * (index.code_size + 8)
        renumbered = None if keep.all() else np.where(keep, np.cumsum(keep) - 1, -1)
        return ListsOfFile(path, start, sizes, index.code_size, renumbered)

    def tier(self, keep: Mask) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """The rerank tier's rows to keep, with their scales, as they are stored."""
        manifest = self.manifest
        paths = self._sound("rerank"), self._sound("rerank_scales")
        tier = RerankTier(*paths, manifest.rerank, self.rows, manifest.rerank_dim)
        for low in range(0, self.rows, ROW_GROUP):
            kept = keep[low : low + ROW_GROUP]
            stored, scales = tier.stored(slice(low, low + len(kept)))
            yield stored[kept], scales[kept] if len(scales) else scales

    def _sound(self, role: str) -> Path:
        name = self.manifest.files[role]
        path = self.folder / name
        if name not in self._compared:
            check_own(path)
            if not path.is_file() or sha256_of(path) != self.manifest.sha256.get(name):
                raise FormatError(f"{path} was changed since it was built: build it again")
            self._compared.add(name)
        return path


def emptied(index: Any) -> Any:
    """An index of the same kind, trained and without vectors."""
    if isinstance(index, faiss.IndexIVF):
        lists: Any = faiss.ArrayInvertedLists(index.nlist, index.code_size)
        index.replace_invlists(lists, True)
        lists.this.disown()
        index.ntotal = 0
        return index
    if isinstance(index, faiss.IndexPQ):
        empty = faiss.IndexPQ(index.d, index.pq.M, index.pq.nbits, index.metric_type)
        empty.pq.centroids = index.pq.centroids
        empty.is_trained = True
        return empty
    return faiss.IndexFlat(index.d, index.metric_type)
