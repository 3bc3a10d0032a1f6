"""Reader of Parquet: one plain file, or the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.errors import EmbedpressError, FormatError, InputError
from embedpress.vectors.column import column_dim, holds_codes, storage, vector_column
from embedpress.vectors.manifest import Manifest, shard_path
from embedpress.vectors.shard import COLUMNS, ID
from embedpress.vectors.table import Part, TableSource

_BUFFER = 2**20


class ParquetSource(TableSource):
    """Rows of one or more Parquet files; memory is bounded by a block and a row group's pages."""

    def _part_batches(
        self, part: Part, low: int, high: int, rows: int, columns: list[str]
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
    with _reading(parts[0].path) as file:
        schema = file.schema_arrow
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


def _first_rows(file: pq.ParquetFile, column: str) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = file.iter_batches(1, columns=[column], use_threads=False)
    return batches


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
