"""Reader of Parquet: one plain file, or the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpress.errors import EmbedpressError, FormatError, InputError, UsageError
from embedpress.vectors.ids import id_type, normal_ids
from embedpress.vectors.manifest import MAX_DIM, Manifest, shard_path
from embedpress.vectors.shard import COLUMNS, ID
from embedpress.vectors.source import Block, row_numbers

_BUFFER = 2**20
_NUMBERS = (pa.float16(), pa.float32(), pa.float64(), pa.int8())


@dataclass(frozen=True)
class _Part:
    path: Path
    first_row: int
    rows: int


class ParquetSource:
    """Rows of one or more Parquet files; memory is bounded by a block and a row group's pages."""

    def __init__(
        self, parts: Sequence[_Part], schema: pa.Schema, column: str, kind: str, dim: int
    ) -> None:
        self.kind, self.dim = kind, dim
        self.count = sum(part.rows for part in parts)
        self._parts, self._schema, self._column = parts, schema, column
        self._has_ids = ID in schema.names and column != ID
        self.metadata_columns: list[str] = [n for n in schema.names if n not in (ID, column)]

    def blocks(self, start: int, stop: int, rows: int, columns: Sequence[str]) -> Iterator[Block]:
        """Yield rows as record batches give them."""
        wanted = [*([ID] if self._has_ids else []), self._column, *columns]
        for row, batch in self._batches(start, stop, rows, wanted):
            metadata = pa.Table.from_batches([batch]).select(list(columns))
            values = matrix_of(batch.column(self._column), self.dim, row)
            yield Block(values, self._ids(batch, row), _plain(metadata))

    def ids(self, start: int, stop: int) -> Iterator[pa.Array]:
        """Yield the id column, or row numbers where there is none."""
        if not self._has_ids:
            yield row_numbers(start, stop)
            return
        for row, batch in self._batches(start, stop, 2**16, [ID]):
            yield self._ids(batch, row)

    def _ids(self, batch: pa.RecordBatch, row: int) -> pa.Array:
        if not self._has_ids:
            return row_numbers(row, row + batch.num_rows)
        return normal_ids(batch.column(ID), first_row=row)

    def _batches(
        self, start: int, stop: int, rows: int, columns: list[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        for part in self._parts:
            low, high = max(start, part.first_row), min(stop, part.first_row + part.rows)
            if low < high:
                local = (low - part.first_row, high - part.first_row)
                for row, batch in self._part_batches(part, *local, rows, columns):
                    yield part.first_row + row, batch

    def _part_batches(
        self, part: _Part, low: int, high: int, rows: int, columns: list[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        with _reading(part.path) as file:
            if not file.schema_arrow.equals(self._schema):
                raise FormatError(f"{part.path} has other columns than the first shard")
            if file.metadata.num_rows != part.rows:
                raise FormatError(
                    f"{part.path} has {file.metadata.num_rows} rows, {part.rows} were expected"
                )
            groups, row = _groups(file, low, high)
            for batch in file.iter_batches(rows, groups, columns, use_threads=False):
                end = row + len(batch)
                if end > low:
                    cut = batch.slice(max(low - row, 0), min(high, end) - max(low, row))
                    cut.validate(full=True)
                    yield max(row, low), cut
                row = end
                if row >= high:
                    return
            raise FormatError(f"{part.path} ends at row {row}, {high} were expected")


def open_parquet(path: Path, column: str | None) -> ParquetSource:
    """Open one Parquet file whose vectors are in a list column."""
    with _reading(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        name = _vector_column(schema, column, path)
        if count == 0:
            raise InputError(f"{path} is empty: it has no rows")
        found = _storage(schema.field(name).type)
        kind = "codes" if pa.types.is_fixed_size_binary(found) else "embeddings"
        dim = _dim(file, name, found, path)
    return ParquetSource([_Part(path, 0, count)], schema, name, kind, dim)


def open_shards(folder: Path, manifest: Manifest) -> ParquetSource:
    """Open the shards of a folder, which must be as its manifest says."""
    parts, row = [], 0
    for shard in manifest.shards:
        path = shard_path(folder, shard)
        size = path.stat().st_size
        if size != shard.bytes:
            raise FormatError(f"{path} has {size} bytes, its manifest says {shard.bytes}")
        parts.append(_Part(path, row, shard.rows))
        row += shard.rows
    if row == 0:
        raise InputError(f"{folder} is empty: its manifest counts no rows")
    name = COLUMNS[manifest.kind]
    with _reading(parts[0].path) as file:
        schema = file.schema_arrow
        if schema.names.count(name) != 1 or schema.names.count(ID) != 1:
            raise FormatError(f"{parts[0].path} must have one column {ID!r} and one {name!r}")
        _vector_column(schema, name, parts[0].path)
        found = _storage(schema.field(name).type)
        binary = pa.types.is_fixed_size_binary(found)
        if binary != (manifest.kind == "codes"):
            raise FormatError(f"{parts[0].path}: column {name!r} holds {found}")
        dim = _dim(file, name, found, parts[0].path)
    if dim != manifest.dim:
        raise FormatError(f"{parts[0].path} has dimension {dim}, its manifest {manifest.dim}")
    return ParquetSource(parts, schema, name, manifest.kind, dim)


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        # With a buffer, pages are read one by one: a row group may be larger than the memory.
        with pq.ParquetFile(
            path, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
        ) as file:
            yield file
    except EmbedpressError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} is not a readable Parquet file: {text}") from error


def _groups(file: pq.ParquetFile, low: int, high: int) -> tuple[list[int], int]:
    """Return the row groups that hold rows `low` to `high`, and the row they start at."""
    groups: list[int] = []
    start = row = 0
    for group in range(file.num_row_groups):
        n = file.metadata.row_group(group).num_rows
        if row + n > low and row < high:
            start = start if groups else row
            groups.append(group)
        row += n
    return groups, start


def _vector_column(schema: pa.Schema, column: str | None, path: Path) -> str:
    if len(set(schema.names)) != len(schema.names):
        raise InputError(f"{path} has two columns of one name: rename one")
    lists = [field.name for field in schema if _is_list(field.type)]
    if column is None:
        usual, code = COLUMNS["embeddings"], COLUMNS["codes"]
        preferred = [usual] if usual in lists else lists
        if not lists and code in schema.names:
            preferred = [code]
        if len(preferred) != 1:
            held = ", ".join(lists or schema.names)[:200]
            raise InputError(
                f"{path} has {len(lists)} columns that can be vectors, not one: name the one to"
                f" read as the column (there are {held})"
            )
        column = preferred[0]
    if column not in schema.names:
        raise UsageError(f"{path} has no column {column!r}; it has {', '.join(schema.names)[:200]}")
    if column not in lists and not _is_code(schema.field(column).type):
        raise InputError(
            f"{path}: column {column!r} is of type {schema.field(column).type}, not lists of"
            " float16, float32, float64 or int8"
        )
    if ID in schema.names and column != ID:
        id_type(schema.field(ID).type)
    return column


def _is_code(found: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(found))


def _is_list(found: pa.DataType) -> bool:
    found = _storage(found)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(found) for test in lists) and found.value_type in _NUMBERS


def _storage(found: pa.DataType) -> pa.DataType:
    return found.storage_type if isinstance(found, pa.BaseExtensionType) else found


def _dim(file: pq.ParquetFile, name: str, found: pa.DataType, path: Path) -> int:
    if pa.types.is_fixed_size_list(found):
        dim = found.list_size
    elif pa.types.is_fixed_size_binary(found):
        dim = found.byte_width
    else:
        batch = next(file.iter_batches(1, columns=[name], use_threads=False), None)
        first = batch.column(name)[0].as_py() if batch is not None and len(batch) else None
        dim = len(first) if first is not None else 0
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{path}: row 0 of column {name!r} has {dim} dimensions")
    return int(dim)


def matrix_of(column: pa.Array, dim: int, first_row: int) -> npt.NDArray[Any]:
    """Return a column of lists, or of codes, as a matrix; `first_row` is for messages.

    Raises
    ------
    InputError
        For rows or numbers that are null, and rows of another length than `dim`.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count:
        row = first_row + pc.index(column.is_null(), True).as_py()
        raise InputError(f"row {row} has no vector (null): repair or drop it")
    if pa.types.is_fixed_size_binary(column.type):
        data = column.buffers()[1]
        flat = np.frombuffer(data, np.uint8, len(column) * dim, column.offset * dim)
        return flat.reshape(len(column), dim)
    if not pa.types.is_fixed_size_list(column.type):
        lengths = pc.list_value_length(column).to_numpy()
        wrong = np.flatnonzero(lengths != dim)
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"row {first_row + row} has {lengths[row]} dimensions, row 0 has {dim}"
            )
    flat_column = column.flatten()
    if flat_column.null_count:
        row = first_row + pc.index(flat_column.is_null(), True).as_py() // dim
        raise InputError(f"row {row} holds a null number: repair or drop it")
    values: npt.NDArray[Any] = flat_column.to_numpy(zero_copy_only=False)
    return values.reshape(len(column), dim)


def _plain(metadata: pa.Table) -> pa.Table:
    # Dictionaries differ from one row group to the next; plain values do not.
    for position, column in enumerate(metadata.columns):
        if pa.types.is_dictionary(column.type):
            values = column.cast(column.type.value_type)
            metadata = metadata.set_column(position, metadata.column_names[position], values)
    return metadata.replace_schema_metadata(None)
