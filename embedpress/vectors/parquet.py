"""Reader of Parquet: one plain file, or the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from embedpress.errors import FormatError, InputError
from embedpress.vectors.column import column_dim, holds_codes, storage, vector_column
from embedpress.vectors.footer import ParquetDoor, open_door
from embedpress.vectors.manifest import Manifest, shard_path
from embedpress.vectors.shard import COLUMNS, ID
from embedpress.vectors.table import Part, TableSource


class ParquetSource(TableSource):
    """Rows of one or more Parquet files; memory is bounded by a block and a row group's pages."""

    def _part_batches(
        self, part: Part, low: int, high: int, rows: int, columns: list[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        with open_door(part.path) as file:
            if not file.schema.equals(self._schema):
                raise FormatError(f"{part.path} has other columns than the first shard")
            if file.count != part.rows:
                raise FormatError(f"{part.path} has {file.count} rows, {part.rows} were expected")
            groups, row = _groups(file, low, high)
            for batch in file.batches(rows, columns, groups):
                end = row + len(batch)
                if end > low:
                    cut = batch.slice(max(low - row, 0), min(high, end) - max(low, row))
                    yield max(row, low), cut
                row = end
                if row >= high:
                    return
            raise FormatError(f"{part.path} ends at row {row}, {high} were expected")


def open_parquet(path: Path, column: str | None) -> ParquetSource:
    """Open one Parquet file whose vectors are in a list column."""
    with open_door(path) as file:
        schema, count = file.schema, file.count
        name = vector_column(schema, column, path)
        if count == 0:
            raise InputError(f"{path} is empty: it has no rows")
        kind = "codes" if holds_codes(schema, name) else "embeddings"
        dim = column_dim(schema, name, _first_rows(file, name), path)
    return ParquetSource([Part(path, 0, count)], schema, name, kind, dim)


def open_shards(folder: Path, manifest: Manifest) -> ParquetSource:
    """Open the shards of a folder, which must be as its manifest says."""
    parts, row = [], 0
    for shard in manifest.shards:
        path = shard_path(folder, shard)
        size = path.stat().st_size
        if size != shard.bytes:
            raise FormatError(f"{path} has {size} bytes, its manifest says {shard.bytes}")
        parts.append(Part(path, row, shard.rows))
        row += shard.rows
    if row == 0:
        raise InputError(f"{folder} is empty: its manifest counts no rows")
    name = COLUMNS[manifest.kind]
    with open_door(parts[0].path) as file:
        schema = file.schema
        if schema.names.count(name) != 1 or schema.names.count(ID) != 1:
            raise FormatError(f"{parts[0].path} must have one column {ID!r} and one {name!r}")
        vector_column(schema, name, parts[0].path)
        if holds_codes(schema, name) != (manifest.kind == "codes"):
            held = storage(schema.field(name).type)
            raise FormatError(f"{parts[0].path}: column {name!r} holds {held}")
        dim = column_dim(schema, name, _first_rows(file, name), parts[0].path)
    if dim != manifest.dim:
        raise FormatError(f"{parts[0].path} has dimension {dim}, its manifest {manifest.dim}")
    return ParquetSource(parts, schema, name, manifest.kind, dim)


def _first_rows(file: ParquetDoor, column: str) -> Iterator[pa.RecordBatch]:
    filled = [group for group, rows in enumerate(file.group_rows) if rows]
    return file.batches(1, [column], filled[:1])


def _groups(file: ParquetDoor, low: int, high: int) -> tuple[list[int], int]:
    """Return the row groups that hold rows `low` to `high`, and the row they start at."""
    groups: list[int] = []
    start = row = 0
    for group, n in enumerate(file.group_rows):
        if row + n > low and row < high:
            start = start if groups else row
            groups.append(group)
        row += n
    return groups, start
