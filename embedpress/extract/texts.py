"""Texts read from a file in chunks of rows, each with its id and its other columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpress.errors import InputError, UsageError
from embedpress.extract.columns import Column
from embedpress.extract.rows import MAX_COLUMNS, Row, format_of, place, read_rows
from embedpress.vectors.arrow import saved_files
from embedpress.vectors.files import sha256_of
from embedpress.vectors.ids import UniqueIds

# Names that the output uses itself; an input column so named gets a trailing underscore.
RESERVED = ("id", "vector", "code", "text")
_ID_BLOCK = 65_536


@dataclass(frozen=True)
class TextChunk:
    """Consecutive records of the input.

    Attributes
    ----------
    ids : pa.Array
        int64 or string, one for each text.
    texts : list of str
    metadata : pa.Table
        The other columns, possibly none, one row for each text.
    blank : int
        Blank lines that were skipped before or between these texts.
    """

    ids: pa.Array
    texts: list[str]
    metadata: pa.Table
    blank: int


@dataclass(frozen=True)
class Texts:
    """An input that was read through once and found sound; made by :func:`open_texts`.

    Attributes
    ----------
    count : int
        Texts, blank lines not counted.
    blank : int
        Blank lines of .txt, .jsonl and .csv files; they are skipped.
    sha256 : str
        Of the contents of the files.
    """

    files: tuple[Path, ...]
    column: str
    id_column: str | None
    count: int
    blank: int
    sha256: str
    _id: Column = field(repr=False)
    _metadata: dict[str, Column] = field(repr=False)

    @property
    def metadata_schema(self) -> pa.Schema:
        """Names and types of the other columns, as they will be written."""
        return pa.schema([(_free(name), column.type) for name, column in self._metadata.items()])

    def chunks(
        self, rows: int, done: frozenset[int] = frozenset(), *, most_bytes: int | None = None
    ) -> Iterator[tuple[int, TextChunk]]:
        """Stream the texts.

        Parameters
        ----------
        rows : int
            Texts in each chunk but the last.
        done : frozenset of int
            Numbers of chunks to leave out.
        most_bytes : int, optional
            The most memory of a chunk's rows.

        Yields
        ------
        tuple of int and TextChunk
            The chunk's number, counted from 0, and the chunk.

        Raises
        ------
        UsageError
            For a chunk that takes more memory than it may.
        """
        index, blank, taken, held = 0, 0, 0, 0
        records: list[tuple[Any, dict[str, Any]]] = []
        for row_id, _, row in _records(self.files, self.column, self.id_column):
            if row.values is None:
                blank += 1
                continue
            # Held back until the next text, so that closing blank lines join the last chunk.
            if taken == rows:
                if index not in done:
                    yield index, self._chunk(records, blank)
                index, blank, taken, held, records = index + 1, 0, 0, 0, []
            taken += 1
            if index not in done:
                records.append((row_id, row.values))
                held += _size(row.values)
                if most_bytes is not None and held > most_bytes:
                    raise UsageError(
                        f"the memory budget does not hold {rows} rows at once (row {taken} of"
                        f" shard {index} is one too many): raise it"
                    )
        if taken and index not in done:
            yield index, self._chunk(records, blank)

    def _chunk(self, records: list[tuple[Any, dict[str, Any]]], blank: int) -> TextChunk:
        arrays = [
            column.array([values.get(name) for _, values in records])
            for name, column in self._metadata.items()
        ]
        return TextChunk(
            ids=self._id.array([row_id for row_id, _ in records]),
            texts=[values[self.column] for _, values in records],
            metadata=pa.Table.from_arrays(arrays, schema=self.metadata_schema),
            blank=blank,
        )


def open_texts(path: str | Path, *, column: str = "text", id_column: str | None = None) -> Texts:
    """Read an input through once, checking every row, before anything costly starts.

    Parameters
    ----------
    path : str or Path
        A .txt (a text on each line), .jsonl, .csv, .parquet or .arrow file, a folder of .parquet
        files, taken in the order of their names, or one that ``datasets.Dataset.save_to_disk``
        wrote. Text files are UTF-8 and may be gzipped (.gz).
    column : str
        The column that holds the texts; a .txt file has only one, whatever its name.
    id_column : str, optional
        The column that holds the ids, integers or strings. By default an id is the record's
        number, counted from 0; skipped blank lines count, so ids still point into the file.

    Returns
    -------
    Texts

    Raises
    ------
    UsageError
        For a path that is not there or has another format.
    InputError
        For a missing column, a text that is not a string, a bad or repeated id, no texts at
        all; FormatError for files that cannot be read. The message names the line.

    Notes
    -----
    Columns of the names ``id``, ``vector``, ``code`` and ``text``, where they are not the id or
    the text, are kept under the name with an underscore added.
    """
    path = Path(path)
    files = _files(path)
    if id_column is not None and any(format_of(file) == ".txt" for file in files):
        raise UsageError(f"{path.name}: a .txt file has no id column; leave id_column out")
    written = any(format_of(file) == ".csv" for file in files)
    ids, metadata = Column(written=written and id_column is not None), dict[str, Column]()
    count = blank = 0
    unique = _UniqueTexts(lambda: _records(files, column, id_column))
    for row_id, file, row in _records(files, column, id_column):
        if row.values is None:
            blank += 1
            continue
        count += 1
        ids.see(row_id)
        if id_column is not None:
            unique.see(str(row_id))
        for name, value in row.values.items():
            if name in (column, id_column):
                continue
            if name not in metadata:
                if len(metadata) == MAX_COLUMNS:
                    raise InputError(f"{place(file, row.number)}: over {MAX_COLUMNS} columns")
                metadata[name] = Column(written=written)
            metadata[name].see(value)
    if not count:
        raise InputError(f"{path.name}: no texts in it")
    names = [_free(name) for name in metadata]
    if len(set(names)) != len(names):
        raise InputError(f"{path.name}: rename one of the columns {sorted(metadata)}")
    if id_column is not None:
        unique.flush()
    digest = hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()
    return Texts(tuple(files), column, id_column, count, blank, digest, ids, metadata)


class _UniqueTexts:
    """Checks ids as they come, in blocks; memory is 8 bytes an id."""

    def __init__(self, again: Callable[[], Iterator[tuple[Any, Path, Row]]]) -> None:
        self._again = again
        self._unique = UniqueIds()
        self._block: list[str] = []
        self._before = 0

    def see(self, value: str) -> None:
        """Take note of the next id."""
        self._block.append(value)
        if len(self._block) == _ID_BLOCK:
            self.flush()

    def flush(self) -> None:
        """Check what came since the last time.

        Raises
        ------
        InputError
            For an id that came before, naming both of its rows.
        """
        found = self._unique.add(pa.array(self._block, pa.string()), self._earlier)
        if found is not None:
            row, value = self._before + found[0], found[1]
            first = next(at for at, other in enumerate(self._ids()) if other == value)
            raise InputError(f"id {value!r} of row {row} is already that of row {first}")
        self._before += len(self._block)
        self._block = []

    def _ids(self) -> Iterator[str]:
        return (str(row_id) for row_id, _, row in self._again() if row.values is not None)

    def _earlier(self) -> Iterator[pa.Array]:
        ids = islice(self._ids(), self._before)
        while block := list(islice(ids, _ID_BLOCK)):
            yield pa.array(block, pa.string())


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        saved = saved_files(path)
        if saved is not None:
            return saved
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".parquet")
        if not files:
            raise UsageError(f"{path.name}: no .parquet files, and no dataset, in this folder")
        return files
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    format_of(path)
    return [path]


def _records(
    files: list[Path] | tuple[Path, ...], column: str, id_column: str | None
) -> Iterator[tuple[Any, Path, Row]]:
    count = 0
    for file in files:
        for row in read_rows(file, column):
            if row.values is None:
                yield None, file, row
            else:
                _check_text(row.values, column, file, row.number)
                yield _id_of(row, count, id_column, file), file, row
            count += 1


def _check_text(values: dict[str, Any], column: str, file: Path, number: int) -> None:
    if column not in values:
        raise InputError(f"{place(file, number)}: no column {column!r}; it has {sorted(values)}")
    if not isinstance(values[column], str):
        kind = "missing" if values[column] is None else f"not a string ({values[column]!r:.40})"
        raise InputError(f"{place(file, number)}: the text in column {column!r} is {kind}")


def _id_of(row: Row, count: int, id_column: str | None, file: Path) -> int | str:
    if id_column is None:
        return count
    values = row.values or {}
    if id_column not in values:
        raise InputError(
            f"{place(file, row.number)}: no id column {id_column!r}; it has {sorted(values)}"
        )
    value = values[id_column]
    if value is None or value == "":
        raise InputError(f"{place(file, row.number)}: the id in column {id_column!r} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InputError(
            f"{place(file, row.number)}: id {value!r:.40} is neither an integer nor a string"
        )
    return value


def _size(values: dict[str, Any]) -> int:
    """Bytes of a record, roughly."""
    return 256 + sum(len(value) for value in values.values() if isinstance(value, str))


def _free(name: str) -> str:
    return name + "_" if name in RESERVED else name
