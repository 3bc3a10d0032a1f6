"""The shards of a job: each piece is checked, written, and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.engine.job import Piece
from embedpress.engine.journal import Entry
from embedpress.errors import FormatError, InputError
from embedpress.vectors.check import check_vectors
from embedpress.vectors.files import write_atomic
from embedpress.vectors.ids import UniqueIds, normal_ids
from embedpress.vectors.manifest import Manifest, Shard
from embedpress.vectors.shard import COLUMNS, ID, shard_bytes, shard_name


class ShardWriter:
    """Writes pieces as shards of one folder, all of one schema and no id twice."""

    def __init__(self, out: Path, header: Manifest) -> None:
        self._out, self._header = out, header
        self._unique = UniqueIds()
        self._names: list[str] = []
        self._schema: pa.Schema | None = None

    def remember(self, entry: Entry) -> None:
        """Take note of a shard that an earlier run wrote.

        Raises
        ------
        InputError
            If its ids are also those of another shard.
        """
        path = self._out / entry.shard.name
        schema = pq.read_schema(path)
        self._same_schema(schema, entry.shard.name)
        self._check_ids(_ids_of(path), entry.shard.name)

    def write(self, index: int, piece: Piece) -> Entry:
        """Write one piece; when this returns, the shard is on the disk.

        Raises
        ------
        InputError
            If the piece does not fit the header or the other shards.
        StorageError
            If the disk refuses.
        """
        name = shard_name(index)
        self._check_values(piece.table, name)
        try:
            data = shard_bytes(piece.table)
        except pa.ArrowException as error:
            raise InputError(f"{name} cannot be written as Parquet: {error}") from None
        self._same_schema(pq.read_schema(pa.BufferReader(data)), name)
        self._check_ids(normal_ids(piece.table.column(ID)), name)
        write_atomic(self._out / name, memoryview(data))
        digest = hashlib.sha256(data).hexdigest()
        shard = Shard(name, piece.table.num_rows, data.size, digest)
        return Entry(index, shard, tuple(piece.skipped), dict(piece.counters))

    def _check_values(self, table: pa.Table, name: str) -> None:
        kind, dim = self._header.kind, self._header.dim
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
        metric = self._header.metric if kind == "embeddings" else None
        check_vectors(values, metric=metric, what=f"{name}: {kind}")

    def _same_schema(self, schema: pa.Schema, name: str) -> None:
        self._schema = self._schema or schema
        if not schema.equals(self._schema):
            before = {f"{field.name}: {field.type}" for field in self._schema}
            changed = sorted(before ^ {f"{field.name}: {field.type}" for field in schema})
            raise InputError(f"{name} has other columns than the shards before: {changed}")

    def _check_ids(self, ids: pa.Array, name: str) -> None:
        found = self._unique.add(ids, self._earlier)
        if found is not None:
            raise InputError(
                f"id {found[1]!r} comes twice (the second time in row {found[0]} of {name}):"
                " every row needs an id of its own"
            )
        self._names.append(name)

    def _earlier(self) -> Iterator[pa.Array]:
        for name in self._names:
            yield _ids_of(self._out / name)


def _ids_of(path: Path) -> pa.Array:
    try:
        return normal_ids(pq.read_table(path, columns=[ID], use_threads=False).column(ID))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise FormatError(f"{path} is not a readable shard: {error}") from None
