"""A column of vectors in a table: which one it is, how wide, and its numbers as a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpress.errors import InputError, UsageError
from embedpress.vectors.ids import id_type
from embedpress.vectors.manifest import MAX_DIM
from embedpress.vectors.shard import COLUMNS, ID

_NUMBERS = (pa.float16(), pa.float32(), pa.float64(), pa.int8())


def vector_column(schema: pa.Schema, column: str | None, path: Path) -> str:
    """Find the column to read: the one asked for, the one called "vector", or the only one.

    Raises
    ------
    UsageError
        No such column.
    InputError
        None or several can be vectors, two have one name, or ids are of no type for ids.
    """
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


def holds_codes(schema: pa.Schema, column: str) -> bool:
    """Whether the vectors of a column are bytes."""
    return _is_code(storage(schema.field(column).type))


def column_dim(
    schema: pa.Schema, column: str, batches: Iterator[pa.RecordBatch], path: Path
) -> int:
    """Floats or bytes of a vector: by the column's type, or else its first row.

    `batches` gives the first rows of the column.

    Raises
    ------
    InputError
        None, or too many.
    """
    found = storage(schema.field(column).type)
    if pa.types.is_fixed_size_list(found):
        dim = found.list_size
    elif pa.types.is_fixed_size_binary(found):
        dim = found.byte_width
    else:
        batch = next((batch for batch in batches if batch.num_rows), None)
        first = None if batch is None else batch.column(column)[0].as_py()
        dim = len(first) if first is not None else 0
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{path}: row 0 of column {column!r} has {dim} dimensions")
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


def storage(found: pa.DataType) -> pa.DataType:
    """A type as it is stored, without the extension that gives it a meaning."""
    return found.storage_type if isinstance(found, pa.BaseExtensionType) else found


def _is_code(found: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(found))


def _is_list(found: pa.DataType) -> bool:
    found = storage(found)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(found) for test in lists) and found.value_type in _NUMBERS
