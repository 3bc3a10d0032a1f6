"""What the rows of a table take when written out, known before they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpress.errors import FormatError

MOST_BYTES = 2**30
"""What one batch may take, or else `MAX_DENSE` times what the file has."""
SMALL = 2**26
"""Bytes that anything may grow to."""
MAX_DENSE = 16
MAX_LIST_RATIO = 200
"""Vectors shrink by a few times."""
MAX_RATIO = 1000
"""Numbers and texts shrink by a few times, too; columns of one value by more."""
_MANY_ROWS = 2**24
_VIEWS = ("string_view", "binary_view")
_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)


def check_rows(path: Path, rows: int, size: int) -> None:
    """Raise :class:`FormatError` for more rows than a file of so many bytes has vectors."""
    if rows > max(_MANY_ROWS, MAX_RATIO // 4 * size):
        raise FormatError(f"{path}: {rows} rows in {size} bytes, as no vectors are")


def check_names(kind: pa.DataType | pa.Schema) -> None:
    """Raise `UnicodeDecodeError` where a column, or a field within one, has a name that is no text.

    pyarrow decodes names when it is asked for them, which is late for those within.
    """
    types = pa.types
    if isinstance(kind, pa.Schema) or types.is_struct(kind):
        fields = list(kind)
    elif types.is_map(kind):
        fields = [kind.key_field, kind.item_field]
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        fields = [kind.value_field]
    else:
        fields = []
    for field in fields:
        field.name.encode()
        check_names(field.type)


class Growth:
    """What the batches of a file take so far, looked at one by one.

    Parameters
    ----------
    path : Path
    size : int
        Bytes of the file.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._left = max(MOST_BYTES, MAX_RATIO * size)

    def check(self, batch: pa.RecordBatch) -> None:
        """Refuse rows that are not as their type says, or that grow as no vectors do.

        Raises
        ------
        FormatError
            Texts of over `MOST_BYTES` in all, where many rows share one; all batches together
            a thousand times as large as the file.
        Exception
            Of pyarrow's: lengths beyond the end, bytes that are no UTF-8, days that no calendar
            has.
        """
        batch.validate(full=True)
        for array in batch.columns:
            if pa.types.is_temporal(array.type):
                extremes = pc.min_max(array)
                extremes["min"].as_py(), extremes["max"].as_py()
        self._left -= batch.nbytes + check_texts(self._path, batch)
        if self._left < 0:
            raise FormatError(
                f"{self._path} grows to over {MAX_RATIO} times its {self._size} bytes, as no"
                " vectors or texts do"
            )


def check_texts(path: Path, batch: pa.RecordBatch) -> int:
    """Bytes of the texts that rows share, if they did not; raises over `MOST_BYTES`."""
    total = 0
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        try:
            size = _shared_bytes(array)
        except TypeError:
            raise FormatError(
                f"{path}: column {name!r} is of type {str(array.type)[:100]}, which is not read:"
                " cast it to a plain one"
            ) from None
        total += size
        if size > MOST_BYTES:
            raise FormatError(
                f"{path}: {len(array)} rows of column {name!r} take {size} bytes, more than"
                f" {MOST_BYTES}: shorten them"
            )
    return total


def _shared_bytes(array: pa.Array) -> int:
    """Bytes of the texts in an array, its lists and structs, that are named by number or place."""
    kind = array.type
    types = pa.types
    if isinstance(array, pa.ExtensionArray):
        return _shared_bytes(array.storage)
    if types.is_dictionary(kind):
        value = kind.value_type
        if types.is_nested(value) or str(value) in _VIEWS:
            raise TypeError(kind)
        if not any(test(value) for test in _TEXTS):
            return 0
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return pc.sum(lengths.take(array.indices)).as_py() or 0
    if str(kind) in _VIEWS:
        # Each is its length and where it lies, in 16 bytes.
        views = np.frombuffer(array.buffers()[1], "<i4").reshape(-1, 4)
        return int(views[array.offset : array.offset + len(array), 0].astype(np.int64).sum())
    if types.is_map(kind):
        return _shared_bytes(array.keys) + _shared_bytes(array.items)
    if types.is_struct(kind):
        return sum(map(_shared_bytes, array.flatten()))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _shared_bytes(array.flatten())
    if types.is_nested(kind) or str(kind).startswith("run_end_encoded"):
        raise TypeError(kind)  # lists that overlap, values that are repeated by a number
    return 0
