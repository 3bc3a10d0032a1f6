"""Rows of tables on disk: a column of vectors, perhaps one of ids, and the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embedpress.vectors.column import matrix_of
from embedpress.vectors.ids import normal_ids
from embedpress.vectors.shard import ID
from embedpress.vectors.source import Block, row_numbers


@dataclass(frozen=True)
class Part:
    """A file and its rows, counted through all files."""

    path: Path
    first_row: int
    rows: int


class TableSource(ABC):
    """Rows of one or more files, in order; a format's own class reads one file."""

    def __init__(
        self, parts: Sequence[Part], schema: pa.Schema, column: str, kind: str, dim: int
    ) -> None:
        self.kind, self.dim = kind, dim
        self.count = sum(part.rows for part in parts)
        self._parts, self._schema, self._column = parts, schema, column
        self._has_ids = ID in schema.names and column != ID
        self.metadata_columns: list[str] = [n for n in schema.names if n not in (ID, column)]

    @abstractmethod
    def _part_batches(
        self, part: Part, low: int, high: int, rows: int, columns: list[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield rows `low` to `high` of a file, by at most `rows`, with the first one's number."""

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


def _plain(metadata: pa.Table) -> pa.Table:
    # Dictionaries differ from one row group to the next; plain values do not.
    for position, column in enumerate(metadata.columns):
        if pa.types.is_dictionary(column.type):
            values = column.cast(column.type.value_type)
            metadata = metadata.set_column(position, metadata.column_names[position], values)
    return metadata.replace_schema_metadata(None)
