"""The door to Parquet files: what the footer promises is compared with the file before it is read.

A file of a kilobyte can stand for gigabytes: a long text that is named a million times, a list of
a thousand million equal numbers. What is read is bounded by a row batch, so what a batch can
grow to is bounded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpress.errors import EmbedpressError, FormatError, one_line
from embedpress.vectors.files import storage_errors

MOST_BYTES = 2**30
"""What the texts of one batch may take."""
_BUFFER = 2**20
# Numbers and texts shrink by a few times, columns of one value by more, vectors never so far.
_SMALL = 2**26
_MAX_RATIO = 1000
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_DICTIONARY = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}


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

    def __init__(self, path: Path, file: pq.ParquetFile, schema: pa.Schema) -> None:
        self.path, self.schema, self._file = path, schema, file
        metadata = file.metadata
        self.group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.count = sum(self.group_rows)
        if min(self.group_rows, default=0) < 0 or self.count != metadata.num_rows:
            raise FormatError(f"{path}: its row groups do not add up to {metadata.num_rows} rows")

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
        wanted = range(len(self.group_rows)) if groups is None else groups
        size = min(rows, self._most_rows(names, wanted))
        for batch in self._file.iter_batches(size, list(wanted), names, use_threads=False):
            batch.validate(full=True)
            yield pa.RecordBatch.from_arrays(
                [self._plain(batch.column(name), self.schema.field(name)) for name in names],
                schema=pa.schema([self.schema.field(name) for name in names]),
            )

    def _most_rows(self, names: Sequence[str], groups: Sequence[int]) -> int:
        """Rows of a batch that cannot outgrow `MOST_BYTES` where texts share their beginnings.

        No text is longer than its column chunk.
        """
        longest = 1
        for group in groups:
            for column in _columns(self._file.metadata, group):
                if column.path_in_schema in names and "DELTA_BYTE_ARRAY" in column.encodings:
                    longest = max(longest, column.total_uncompressed_size)
        return max(1, MOST_BYTES // longest)

    def _plain(self, array: pa.Array, field: pa.Field) -> pa.Array:
        if pa.types.is_dictionary(array.type):
            kind = array.type.value_type
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_bytes(kind):
                lengths = pc.binary_length(array.dictionary).cast(pa.int64())
                size = pc.sum(lengths.take(array.indices)).as_py() or 0
                if size > MOST_BYTES:
                    raise FormatError(
                        f"{self.path}: {len(array)} rows of column {field.name!r} take {size}"
                        f" bytes, more than {MOST_BYTES}: shorten them"
                    )
            if array.type != field.type:
                array = array.dictionary_decode().cast(field.type)
        if pa.types.is_temporal(array.type):
            # Files can name days that no calendar here has.
            extremes = pc.min_max(array)
            extremes["min"].as_py(), extremes["max"].as_py()
        return array


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
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        _check_sizes(path, metadata)
        # With a buffer, pages are read one by one: a row group may be larger than the memory.
        with pq.ParquetFile(
            path,
            metadata=metadata,
            pre_buffer=False,
            buffer_size=_BUFFER,
            page_checksum_verification=True,
            read_dictionary=_repeated(metadata, schema),
        ) as file:
            yield ParquetDoor(path, file, schema)
    except EmbedpressError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        with storage_errors(path, "read"):
            raise error
    except Exception as error:  # what a parser raises is no closed list
        text = one_line(error)
        raise FormatError(f"{path} is not a readable Parquet file: {text}") from error


def _columns(metadata: pq.FileMetaData, group: int) -> Iterator[Any]:
    row_group = metadata.row_group(group)
    return (row_group.column(place) for place in range(row_group.num_columns))


def _check_sizes(path: Path, metadata: pq.FileMetaData) -> None:
    for group in range(metadata.num_row_groups):
        for place, column in enumerate(_columns(metadata, group)):
            leaf = metadata.schema.column(place)
            size = column.total_uncompressed_size
            width = leaf.length if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
            if leaf.max_repetition_level or width:
                size = max(size, column.num_values * (width or _WIDTHS.get(leaf.physical_type, 4)))
            if size > _SMALL and size > _MAX_RATIO * max(column.total_compressed_size, 1):
                raise FormatError(
                    f"{path}: column {column.path_in_schema[:80]!r} would grow from"
                    f" {column.total_compressed_size} to {size} bytes, as no vectors do"
                )


def _repeated(metadata: pq.FileMetaData, schema: pa.Schema) -> list[str]:
    """Columns of texts that are stored once and named by number: to be read like that."""
    texts = {
        field.name
        for field in schema
        if pa.types.is_string(field.type)
        or pa.types.is_large_string(field.type)
        or _is_bytes(field.type)
    }
    named: set[str] = set()
    for group in range(metadata.num_row_groups):
        for column in _columns(metadata, group):
            # No text is longer than all of its column chunk.
            most = column.total_uncompressed_size * metadata.row_group(group).num_rows
            if most > MOST_BYTES and _DICTIONARY & set(column.encodings):
                named.add(column.path_in_schema)
            if "DELTA_BYTE_ARRAY" in column.encodings:
                texts.discard(column.path_in_schema)
    return sorted(named & texts)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
