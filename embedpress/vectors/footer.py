"""The door to Parquet files: what a file would grow to is known before it is unpacked.

A file of a kilobyte can stand for gigabytes: a long text that is named a million times, a list of
a thousand million equal numbers. What is read is bounded by a row batch, so what a batch can
grow to is bounded here, by the footer and by the headers of the pages, which may say otherwise.
"""

from __future__ import annotations

import itertools
import mmap
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.errors import EmbedpressError, FormatError, one_line
from embedpress.vectors import growth
from embedpress.vectors.files import storage_errors
from embedpress.vectors.growth import Growth, check_names, check_rows, check_texts
from embedpress.vectors.pages import Pages, walk_pages
from embedpress.vectors.thrift import read_items

_BUFFER = 2**20
_FOOTER = 2**21
"""Bytes of any footer, or else a fiftieth of the file; it takes hundreds of times the memory."""
_TAIL = 8
_GROUPS, _COLUMNS, _ABOUT, _ENCRYPTED = 4, 1, 3, {8, 9}
_VALUES, _SIZE, _PAGES, _DICTIONARY = 5, 7, 9, 11
"""Where these stand in a footer, a row group, a column, and what is told about it."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


class ParquetDoor:
    """An open Parquet file.

    Attributes
    ----------
    schema : pyarrow.Schema
    count : int
        Rows.
    group_rows : list of int
        Rows of each row group.
    """

    def __init__(
        self, path: Path, data: mmap.mmap, metadata: pq.FileMetaData, schema: pa.Schema
    ) -> None:
        self.path, self.schema = path, schema
        self._data, self._metadata = data, metadata
        self._chunks = array("q")
        self.group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.count = sum(self.group_rows)
        if min(self.group_rows, default=0) < 0 or self.count != metadata.num_rows:
            raise FormatError(f"{path}: its row groups do not add up to {metadata.num_rows} rows")
        check_rows(path, self.count, len(data))
        check_names(schema)

    def batches(
        self, rows: int, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Checked batches of at most `rows` rows, with the types of `schema`.

        Raises
        ------
        FormatError
            What cannot be decoded, or would fill the memory.
        """
        names = self.schema.names if columns is None else list(columns)
        wanted = list(range(len(self.group_rows)) if groups is None else groups)
        schema = pa.schema([self.schema.field(name) for name in names])
        leaves = self._leaves(wanted, names)
        size = self._batch_rows(rows, leaves)
        named = [leaf.path for leaf in leaves if leaf.named_often(size)]
        # Texts that are stored once are counted by their numbers before they are written out.
        counted = self._count(wanted, size, named) if named else itertools.repeat(None)
        taken = Growth(self.path, len(self._data))
        with self._open() as file:
            batches = file.iter_batches(size, wanted, names, use_threads=False)
            for _, batch in zip(counted, batches, strict=False):
                taken.check(batch)
                arrays = [batch.column(name) for name in names]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def check(self) -> None:
        """Raise where a row group would fill the memory; for those who read them whole."""
        for group, rows in enumerate(self.group_rows):
            leaves = self._leaves([group], self.schema.names)
            named = [leaf.path for leaf in leaves if leaf.named_often(rows)]
            for _ in self._count([group], rows, named) if named else ():
                pass

    def _open(self, by_number: Sequence[str] = ()) -> pq.ParquetFile:
        # With a buffer, pages are read one by one: a row group may be larger than the memory.
        return pq.ParquetFile(
            self.path,
            metadata=self._metadata,
            pre_buffer=False,
            buffer_size=_BUFFER,
            page_checksum_verification=True,
            read_dictionary=list(by_number),
        )

    def _leaves(self, groups: Sequence[int], names: Sequence[str]) -> list[_Leaf]:
        """Columns below those named, none of which grows as no vectors do."""
        width = self._metadata.num_columns
        self._chunks = self._chunks or _chunks(self._data, width)
        found: list[_Leaf] = []
        for place in range(width):
            schema = self._metadata.schema.column(place)
            path = schema.path
            if not any(path == name or path.startswith(f"{name}.") for name in names):
                continue
            whole: _Leaf | None = None
            for group in groups:
                at = 3 * (group * width + place)
                chunk = _Chunk(*self._chunks[at : at + 3])
                leaf = _Leaf.of(chunk, schema, self.group_rows[group], self._data)
                if leaf.grows_too_far():
                    raise FormatError(
                        f"{self.path}: column {path[:80]!r} would grow from {leaf.packed} to"
                        f" {leaf.size} bytes, as no vectors do"
                    )
                if whole is None:
                    whole = leaf
                else:
                    whole.extend(leaf)
            found += [whole] if whole else []
        return found

    def _batch_rows(self, rows: int, leaves: Sequence[_Leaf]) -> int:
        """Rows of a batch, `rows` at most, that cannot outgrow the memory, whatever they hold."""
        most = max(growth.MOST_BYTES, growth.MAX_DENSE * sum(leaf.packed for leaf in leaves))
        while (size := sum(leaf.most_bytes(rows) for leaf in leaves)) > most:
            if rows == 1:
                raise FormatError(f"{self.path}: one row may take {size} bytes, as no vector does")
            rows = max(1, rows // 2)
        return rows

    def _count(self, groups: Sequence[int], rows: int, named: Sequence[str]) -> Iterator[None]:
        """Step from batch to batch, counting the texts that are stored once and named by number."""
        with self._open(named) as file:
            for batch in file.iter_batches(rows, groups, named, use_threads=False):
                check_texts(self.path, batch)
                yield


@dataclass
class _Leaf:
    """A column of plain values, in one row group or more."""

    path: str
    pages: Pages
    packed: int
    count: int
    rows: int
    width: int
    """Bytes of a value; 0 for texts."""
    in_lists: bool
    is_text: bool
    longest: int
    """What no text is longer than."""

    @staticmethod
    def of(chunk: _Chunk, schema: Any, rows: int, data: mmap.mmap) -> _Leaf:
        in_lists, count = schema.max_repetition_level > 0, chunk.values
        if count < rows if in_lists else count != rows:
            raise ValueError(f"{count} values of a column are not those of {rows} rows")
        kind = schema.physical_type
        pages = walk_pages(data, chunk.start, chunk.size, count)
        return _Leaf(
            schema.path,
            pages,
            chunk.size,
            count,
            rows,
            schema.length if kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(kind, 0),
            in_lists,
            kind == "BYTE_ARRAY" and schema.logical_type.type != "DECIMAL",
            pages.unpacked,
        )

    @property
    def size(self) -> int:
        """Bytes when unpacked; of numbers that may be one number, when written out."""
        written_out = self.in_lists or self.width not in _WIDTHS.values()
        return max(self.pages.unpacked, written_out * self.count * (self.width or 4))

    def extend(self, following: _Leaf) -> None:
        """Add the column's next row group."""
        self.pages.extend(following.pages)
        self.packed += following.packed
        self.count += following.count
        self.rows += following.rows
        self.longest = max(self.longest, following.longest)

    def grows_too_far(self) -> bool:
        ratio = growth.MAX_LIST_RATIO if self.in_lists else growth.MAX_RATIO
        far = self.size > growth.SMALL and self.size > ratio * self.packed
        # A text may begin as all before it do. In a list there is no telling how many there are.
        size = self.count * self.longest if self.in_lists else 0
        return far or (self.pages.shares_beginnings and size > growth.MOST_BYTES)

    def most_bytes(self, rows: int) -> int:
        """What as many rows take, at most; lists are taken to be equally long."""
        values = -(-rows * self.count // max(self.rows, 1)) if self.in_lists else rows
        if self.pages.shares_beginnings and not self.in_lists:
            return values * self.longest
        return max(self.pages.most_bytes(values), values * self.width)

    def named_often(self, rows: int) -> bool:
        """Whether texts that are stored once could outgrow the memory in a batch of rows."""
        values = self.count if self.in_lists else rows
        return self.is_text and values * self.pages.dictionary > growth.MOST_BYTES


class _Chunk(NamedTuple):
    """Where the pages of a column in a row group start, their bytes, and their values."""

    start: int
    size: int
    values: int


def _chunks(data: mmap.mmap, width: int) -> array[int]:
    """A :class:`_Chunk` for each of `width` columns of each row group, as the footer has them.

    pyarrow ends the process over some of what a column can say of itself here.
    """
    end = len(data) - _TAIL
    found = array("q")
    for group in read_items(data, end - int.from_bytes(data[-8:-4], "little"), end, _GROUPS):
        if len(group[_COLUMNS]) != width:
            raise ValueError(f"a row group has {len(group[_COLUMNS])} columns, not {width}")
        for column in group[_COLUMNS]:
            if column.keys() & _ENCRYPTED:
                raise ValueError("a column is encrypted")
            about = column[_ABOUT]
            pages, named = about[_PAGES], about.get(_DICTIONARY, 0)
            start = named if 0 < named < pages else pages
            found.extend((start, about[_SIZE], about[_VALUES]))
    return found


@contextmanager
def open_door(path: Path) -> Iterator[ParquetDoor]:
    """Open a Parquet file that nobody vouches for.

    Raises
    ------
    FormatError
        Not a Parquet file, or one that would grow as no vectors do; also for whatever goes wrong
        in the body with reading it.
    StorageError
        It is gone, or may not be read.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            size = int.from_bytes(data[-8:-4], "little")
            if data[-4:] == b"PAR1" and size > max(_FOOTER, len(data) // 50):
                raise FormatError(f"{path}: its footer of {size} bytes is larger than any")
            metadata = pq.read_metadata(path)
            yield ParquetDoor(path, data, metadata, metadata.schema.to_arrow_schema())
    except EmbedpressError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        with storage_errors(path, "read"):
            raise error
    except Exception as error:  # what a parser raises is no closed list
        text = one_line(error)
        raise FormatError(f"{path} is not a readable Parquet file: {text}") from error
