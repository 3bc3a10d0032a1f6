"""The shards of a folder: each is of the same schema, and no id comes twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.engine.entry import Entry
from embedpress.engine.job import Piece
from embedpress.engine.shard_file import Built, build_shard, check_schema
from embedpress.errors import InputError
from embedpress.vectors.files import atomic_path, write_atomic
from embedpress.vectors.footer import ParquetDoor, open_door
from embedpress.vectors.ids import UniqueIds, normal_ids
from embedpress.vectors.manifest import Manifest
from embedpress.vectors.shard import ID, shard_name

_ROWS = 65_536


class ShardWriter:
    """Writes the shards of one folder; when a call returns, its shard is on the disk."""

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
        with open_door(path) as file:
            self._check(file.schema, _ids_of(file), entry.shard.name)

    def write(self, index: int, pieces: Iterable[Piece]) -> Entry:
        """Write the pieces of one shard.

        Raises
        ------
        InputError
            If they do not fit the header or the other shards.
        StorageError
            If the disk refuses.
        """
        name = shard_name(index)
        with atomic_path(self._out / name) as temporary:
            with temporary.open("xb") as file:
                built = build_shard(file, self._header, name, pieces)
            self._check(built.schema, built.ids, name)
        return _entry(index, built)

    def adopt(self, index: int, built: Built, data: bytes) -> Entry:
        """Write a shard that was built elsewhere; raises as :meth:`write` does."""
        # Not the schema that came along: pickled types lose the names of their inner fields.
        schema = pq.read_schema(pa.BufferReader(data))
        self._check(schema, built.ids, built.shard.name)
        write_atomic(self._out / built.shard.name, data)
        return _entry(index, built)

    def _check(self, schema: pa.Schema, ids: pa.Array, name: str) -> None:
        self._schema = self._schema or schema
        check_schema(schema, self._schema, name)
        found = self._unique.add(ids, self._earlier)
        if found is not None:
            raise InputError(
                f"id {found[1]!r} comes twice (the second time in row {found[0]} of {name}):"
                " every row needs an id of its own"
            )
        self._names.append(name)

    def _earlier(self) -> Iterator[pa.Array]:
        for name in self._names:
            with open_door(self._out / name) as file:
                yield _ids_of(file)


def _entry(index: int, built: Built) -> Entry:
    return Entry(index, built.shard, built.skipped, built.counters)


def _ids_of(file: ParquetDoor) -> pa.Array:
    parts = [batch.column(0) for batch in file.batches(_ROWS, [ID])]
    return normal_ids(pa.chunked_array(parts, file.schema.field(ID).type))
