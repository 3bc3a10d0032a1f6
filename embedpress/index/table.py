"""Ids and metadata of an index: one Parquet file, a line a row of FAISS's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.engine.hashed_file import HashedFile
from embedpress.errors import FormatError, InputError, MismatchError, first_line
from embedpress.vectors import Batch
from embedpress.vectors.footer import open_door
from embedpress.vectors.ids import id_type

ROW_GROUP = 16_384


class TableWriter:
    """Writes ids and metadata, a batch at a time.

    Parameters
    ----------
    file : HashedFile
        Its parts are written from front to back; whoever opened it closes it.
    schema : pyarrow.Schema, optional
        What the file must hold; that of the first batch by default. Columns that a batch lacks are
        empty in it.
    """

    def __init__(self, file: HashedFile, schema: pa.Schema | None = None) -> None:
        self._file = file
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> TableWriter:
        if self._schema is not None:
            self._open(self._schema)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add rows; the first column is "id"."""
        if self._writer is None or self._schema is None:
            self._open(table.schema.remove_metadata())
        assert self._writer is not None
        self._writer.write_table(_fitted(table, self._writer.schema), row_group_size=ROW_GROUP)

    def _open(self, schema: pa.Schema) -> None:
        self._schema = schema
        whole = pa.types.is_integer(schema.field("id").type)
        self._writer = pq.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            # Ids differ from each other: what they share with the one before is all there is.
            column_encoding={"id": "DELTA_BINARY_PACKED" if whole else "DELTA_BYTE_ARRAY"},
            use_dictionary=[field.name for field in schema if field.name != "id"],
        )


def as_table(batch: Batch) -> pa.Table:
    """Ids and metadata of a batch."""
    table = pa.table({"id": batch.ids})
    for name in batch.metadata.column_names:
        table = table.append_column(name, batch.metadata[name])
    return table


def read_table(path: Path, rows: int) -> pa.Table:
    """All ids and metadata.

    Raises
    ------
    FormatError, InputError
        The file cannot be read, or is not that of `rows` vectors.
    """
    with open_door(path) as file:
        if file.count != rows or file.schema.names[:1] != ["id"]:
            raise InputError(f"{path} has {file.count} ids for {rows} vectors: build it again")
        id_type(file.schema.field("id").type)
        batches = list(file.batches(ROW_GROUP))
        return pa.Table.from_batches(batches, schema=file.schema).combine_chunks()


def values_of(rows: pa.Table | pa.ChunkedArray, folder: Path) -> list[Any]:
    """Rows as Python has them; raises FormatError for values that it has none for."""
    try:
        found: list[Any] = rows.to_pylist()
    except Exception as error:  # each type's conversion raises its own
        raise FormatError(
            f"the metadata of {folder} cannot be shown: {first_line(error)}"
        ) from None
    return found


def read_schema(path: Path) -> pa.Schema:
    """The columns of the file; raises FormatError where it cannot be read."""
    with open_door(path) as file:
        return file.schema


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Rows in the order of the file; raises FormatError where it cannot be read."""
    with open_door(path) as file:
        yield from file.batches(ROW_GROUP)


def joined_schema(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The columns of both.

    Raises
    ------
    MismatchError
        A column has another type in one than in the other.
    """
    try:
        return pa.unify_schemas([old.remove_metadata(), new.remove_metadata()])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        text = str(error).splitlines()[0]
        raise MismatchError(f"the new rows do not fit the index's columns: {text}") from None


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
