"""Records of a text input, a format at a time: .txt, .jsonl, .csv (also .gz), .parquet, .arrow."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.vectors.arrow import reading_arrow
from embedpress.vectors.document import parse_json
from embedpress.vectors.footer import open_door
from embedpress.vectors.growth import Growth

FORMATS = (".txt", ".jsonl", ".csv", ".parquet", ".arrow")
TABLES = (".parquet", ".arrow")
# A file without line ends must not be able to fill the memory.
MAX_LINE_BYTES = 64 << 20
MAX_COLUMNS = 1000
# Text shrinks by a few times; a .gz file that grows far more is made to take the day.
_MAX_RATIO = 200
_SMALL = 1 << 30

_BATCH_ROWS = 1024

_log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One record: the place to name in a message, and its values (None for a blank line)."""

    number: int
    values: dict[str, Any] | None


def format_of(path: Path) -> str:
    """The format of a file by its name, without a closing ``.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] not in ([".parquet"], [".arrow"]):
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise UsageError(f"{path.name}: texts are read from {', '.join(FORMATS)}")
    return suffixes[-1]


def place(path: Path, number: int) -> str:
    """A record's place, for messages: ``reviews.csv, line 7``."""
    return f"{path.name}, {'row' if format_of(path) in TABLES else 'line'} {number}"


def read_rows(path: Path, column: str) -> Iterator[Row]:
    """Stream the records of one file.

    Parameters
    ----------
    path : Path
        A file in one of the formats.
    column : str
        What to call the lines of a .txt file.

    Yields
    ------
    Row
        In file order. Numbers are lines counted from 1, or rows from 0 for tables.

    Raises
    ------
    FormatError
        For bytes that are not UTF-8, bad JSON, ragged CSV, broken Parquet, naming the line.
    """
    kind = format_of(path)
    try:
        if kind == ".txt":
            yield from _read_txt(path, column)
        elif kind == ".jsonl":
            yield from _read_jsonl(path)
        elif kind == ".csv":
            yield from _read_csv(path)
        elif kind == ".arrow":
            yield from _read_arrow(path)
        else:
            yield from _read_parquet(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(f"{path.name}: a broken gzip file ({error})") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of UTF-8 text by their numbers, counted from 1; of a .gz file, unpacked.

    Raises
    ------
    FormatError
        Not UTF-8, a line of over 64 MiB, or a .gz file that grows as no text does.
    """
    packed = path.suffix.lower() == ".gz"
    opener: Any = gzip.open if packed else open
    most = max(_SMALL, _MAX_RATIO * path.stat().st_size) if packed else None
    with cast("BinaryIO", opener(path, "rb")) as file:
        number = taken = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            taken += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise FormatError(f"{place(path, number)}: longer than {MAX_LINE_BYTES} bytes")
            if most is not None and taken > most:
                raise FormatError(
                    f"{place(path, number)}: unpacked, over {_MAX_RATIO} times as large"
                )
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"{place(path, number)}: not UTF-8 (byte 0x{line[error.start]:02x} at column "
                    f"{error.start + 1}); save the file as UTF-8"
                ) from error


def _read_txt(path: Path, column: str) -> Iterator[Row]:
    for number, line in read_lines(path):
        text = line.rstrip("\r\n")
        yield Row(number, {column: text} if text.strip() else None)


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        if not line.strip():
            yield Row(number, None)
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise FormatError(f"{place(path, number)}: not JSON ({error})") from error
        if not isinstance(values, dict):
            raise FormatError(f"{place(path, number)}: not a JSON object but {_short(values)}")
        yield Row(number, values)


def _read_csv(path: Path) -> Iterator[Row]:
    lines = _CsvLines(path)
    reader = csv.reader(lines, strict=True)
    header = _next_record(reader, path)
    if header is None:
        return
    if len(header) > MAX_COLUMNS + 2:  # and the text and the id
        raise FormatError(f"{place(path, 1)}: over {MAX_COLUMNS} columns")
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FormatError(f"{place(path, 1)}: column {twice!r} is named twice")
    while True:
        lines.taken = 0
        record = _next_record(reader, path)
        if record is None:
            return
        number = reader.line_num
        if not record:
            yield Row(number, None)
            continue
        if len(record) != len(header):
            raise FormatError(
                f"{place(path, number)}: {len(record)} fields where the header has {len(header)}"
            )
        yield Row(number, dict(zip(header, record, strict=True)))


class _CsvLines:
    """Lines for a reader of records, which may take several each, of bounded size in all."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines, self.taken = path, read_lines(path), 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.taken += len(line)
            if self.taken > MAX_LINE_BYTES:
                raise FormatError(
                    f"{place(self._path, number)}: a record longer than {MAX_LINE_BYTES} bytes;"
                    " is a quote not closed?"
                )
            yield line


def _next_record(reader: Any, path: Path) -> list[str] | None:
    # The module's limit, 131,072 characters a field, is shorter than a long document.
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return cast("list[str] | None", next(reader, None))
    except csv.Error as error:
        raise FormatError(f"{place(path, reader.line_num)}: not CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _read_parquet(path: Path) -> Iterator[Row]:
    with open_door(path) as file:
        names = _plain_columns(file.schema, path)
        yield from _table_rows(file.batches(_BATCH_ROWS, names))


def _read_arrow(path: Path) -> Iterator[Row]:
    with reading_arrow(path) as (schema, batches):
        names = _plain_columns(schema, path)
        taken = Growth(path, path.stat().st_size)
        yield from _table_rows(
            _sound(taken, batch.select(names).slice(start, _BATCH_ROWS))
            for batch in batches
            for start in range(0, len(batch), _BATCH_ROWS)
        )


def _sound(taken: Growth, batch: pa.RecordBatch) -> pa.RecordBatch:
    taken.check(batch)
    return batch


def _plain_columns(schema: pa.Schema, path: Path) -> list[str]:
    """Names of the columns that metadata can be; vectors, pictures and the like are left out."""
    names = [field.name for field in schema if _is_plain(field.type)]
    dropped = [name for name in schema.names if name not in names]
    if len(set(names)) != len(names):
        raise InputError(f"{path.name}: two columns of the same name")
    if dropped:
        _log.warning("%s: nested and binary columns left out: %s", path.name, dropped)
    return names


def _table_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            yield Row(number, values)
            number += 1


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return not (pa.types.is_nested(kind) or binary or pa.types.is_fixed_size_binary(kind))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
