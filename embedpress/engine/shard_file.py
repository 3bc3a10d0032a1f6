"""The file of one shard, written a row group at a time while its checksum is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from embedpress.engine.hashed_file import HashedFile
from embedpress.engine.job import Piece
from embedpress.errors import InputError, UsageError
from embedpress.vectors.check import check_vectors
from embedpress.vectors.ids import normal_ids
from embedpress.vectors.manifest import Manifest, Shard
from embedpress.vectors.shard import COLUMNS, ID, ROW_GROUP, ShardFile, solid_table


@dataclass(frozen=True)
class Built:
    """A shard that was written: the facts of its file, and what the folder must know of it."""

    shard: Shard
    schema: pa.Schema
    ids: pa.Array
    skipped: tuple[Mapping[str, Any], ...]
    counters: Mapping[str, int]


def build_shard(file: BinaryIO, header: Manifest, name: str, pieces: Iterable[Piece]) -> Built:
    """Write the pieces of one shard to a file that is open for writing.

    Memory is bounded by a piece and a row group. The bytes depend on the rows alone, not on
    how they were cut into pieces.

    Raises
    ------
    InputError
        If a piece does not fit the header or the pieces before it.
    """
    sink = HashedFile(file)
    shard: ShardFile | None = None
    waiting: list[pa.Table] = []
    ids: list[pa.Array] = []
    skipped: list[Mapping[str, Any]] = []
    counters: Counter[str] = Counter()
    for piece in pieces:
        _check_values(piece.table, header, name)
        table = solid_table(piece.table)
        skipped += piece.skipped
        counters.update(piece.counters)
        ids.append(normal_ids(table.column(ID)))
        try:
            shard = shard or ShardFile(sink, table.schema)
            check_schema(table.schema, shard.schema, name)
            waiting.append(table)
            held = sum(part.num_rows for part in waiting)
            if held >= ROW_GROUP:
                joined = pa.concat_tables(waiting)
                whole = held - held % ROW_GROUP
                shard.write(joined.slice(0, whole))
                waiting = [joined.slice(whole)] if whole < held else []
        except pa.ArrowException as error:
            raise InputError(f"{name} cannot be written as Parquet: {error}") from None
    if shard is None:
        raise UsageError(f"the job gave nothing for {name}")
    if waiting:
        shard.write(pa.concat_tables(waiting))
    shard.close()
    every = pa.concat_arrays(ids)
    facts = Shard(name, len(every), sink.size, sink.digest.hexdigest())
    return Built(facts, shard.schema, every, tuple(skipped), dict(counters))


def check_schema(found: pa.Schema, expected: pa.Schema, name: str) -> None:
    """Raise `InputError`, naming the columns that differ, unless two schemas are the same."""
    if not found.equals(expected):
        before = {f"{field.name}: {field.type}" for field in expected}
        changed = sorted(before ^ {f"{field.name}: {field.type}" for field in found})
        raise InputError(f"{name} has other columns than the rows before: {changed}")


def _check_values(table: pa.Table, header: Manifest, name: str) -> None:
    kind, dim = header.kind, header.dim
    column = COLUMNS[kind]
    if table.column_names[:2] != [ID, column]:
        raise InputError(f"{name}: the first columns must be {ID!r} and {column!r}")
    found = table.schema.field(column).type
    if kind == "codes":
        fits = pa.types.is_fixed_size_binary(found) and found.byte_width == dim
    else:
        fits = pa.types.is_fixed_size_list(found) and found.list_size == dim
        fits = fits and found.value_type == pa.float32()
    if table.schema.field(ID).type not in (pa.int64(), pa.string()):
        raise InputError(f"{name}: ids are {table.schema.field(ID).type}, not int64 or string")
    if not fits or table.column(column).null_count:
        raise InputError(f"{name}: column {column!r} is {found}, not {kind} of dimension {dim}")
    if kind == "codes" or table.num_rows == 0:
        return
    flat = table.column(column).combine_chunks().flatten()
    values = np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, dim)
    metric = header.metric if kind == "embeddings" else None
    check_vectors(values, metric=metric, what=f"{name}: {kind}")
