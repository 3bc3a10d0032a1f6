"""Reader of Arrow's own files: one .arrow file, or a folder that the datasets library saved."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpress.errors import EmbedpressError, FormatError, InputError, UsageError, one_line
from embedpress.vectors.column import column_dim, holds_codes, vector_column
from embedpress.vectors.document import read_json
from embedpress.vectors.files import check_own, storage_errors
from embedpress.vectors.growth import Growth, check_names, check_rows
from embedpress.vectors.messages import checked_messages
from embedpress.vectors.source import let_go
from embedpress.vectors.table import Part, TableSource

STATE, SPLITS = "state.json", "dataset_dict.json"
_LIMIT = 1 << 20
"""Bytes of a state.json that are read."""
_MAGIC, _END = b"ARROW1", b"\xff\xff\xff\xff\0\0\0\0"
"""A file of the random-access form starts and ends with the one, a stream ends with the other."""
_START = 8
"""Where the stream in the former starts."""


class ArrowSource(TableSource):
    """Rows of Arrow files, mapped into memory; what was read is not kept there."""

    def _part_batches(
        self, part: Part, low: int, high: int, rows: int, columns: list[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        with reading_arrow(part.path) as (schema, batches):
            if not schema.equals(self._schema):
                raise FormatError(f"{part.path} has other columns than the first file")
            row, taken = 0, Growth(part.path, part.path.stat().st_size)
            for batch in batches:
                for start in range(max(low - row, 0), min(high - row, len(batch)), rows):
                    stop = min(start + rows, high - row, len(batch))
                    found = batch.select(columns).slice(start, stop - start)
                    taken.check(found)
                    yield row + start, found
                row += len(batch)
                if row >= high:
                    return
            raise FormatError(f"{part.path} ends at row {row}, {high} were expected")


def open_arrow(files: Sequence[Path], column: str | None, name: Path) -> ArrowSource:
    """Open Arrow files of one schema whose vectors are in a list column.

    Parameters
    ----------
    files
        In the order of their rows.
    column
        See :func:`embedpress.open_vectors`.
    name
        What to call them in messages.

    Raises
    ------
    UsageError, InputError, FormatError
        See :func:`embedpress.open_vectors`.
    """
    parts: list[Part] = []
    row = 0
    for path in files:
        with reading_arrow(path) as (_, batches):
            n = sum(batch.num_rows for batch in batches)
        check_rows(path, n, path.stat().st_size)
        parts.append(Part(path, row, n))
        row += n
    if row == 0:
        raise InputError(f"{name} is empty: it has no rows")
    first = next(part.path for part in parts if part.rows)
    with reading_arrow(first) as (schema, batches):
        found = vector_column(schema, column, name)
        dim = column_dim(schema, found, _firsts(batches, found), name)
    kind = "codes" if holds_codes(schema, found) else "embeddings"
    return ArrowSource(parts, schema, found, kind, dim)


def _firsts(batches: Iterator[pa.RecordBatch], column: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        first = batch.select([column]).slice(0, 1)
        first.validate(full=True)  # pyarrow ends the process over an offset beyond the end
        yield first


def saved_files(folder: Path) -> list[Path] | None:
    """Files of a folder written by ``datasets.Dataset.save_to_disk``; None for any other folder.

    Raises
    ------
    UsageError
        A folder of several splits, naming them.
    InputError
        Rows in another order than the files have them, as old versions saved.
    FormatError
        A state.json that names no files of its folder.
    """
    if (folder / SPLITS).is_file():
        names = _document(folder / SPLITS).get("splits")
        listed = [name for name in names if isinstance(name, str)] if names else []
        raise UsageError(
            f"{folder} holds the splits {', '.join(listed)[:200]}: give the folder of one, as"
            f" {folder / (listed[0] if listed else 'train')}"
        )
    if not (folder / STATE).is_file():
        return None
    state = _document(folder / STATE)
    if state.get("_indices_data_files"):
        raise InputError(f"{folder} was saved with its rows in another order: load and save again")
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
        files = [folder / name for name in names]
        known = all(Path(name).name == name and name.endswith(".arrow") for name in names)
    except (KeyError, TypeError):
        known, files = False, []
    if not known or not files or len(set(files)) != len(files):
        raise FormatError(f"{folder / STATE} names no .arrow files of its folder")
    for file in files:
        check_own(file)
    return files


def _document(file: Path) -> dict[str, Any]:
    found = read_json(file, _LIMIT)
    if not isinstance(found, dict):
        raise FormatError(f"{file} does not describe a dataset")
    return found


@contextmanager
def reading_arrow(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The schema and the record batches of one file, unchecked.

    Raises
    ------
    FormatError
        A file that is not Arrow's, or cut off.
    """
    try:
        with storage_errors(path, "read"), path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data = pa.py_buffer(mapped)
        whole = mapped[-len(_END) :] == _END
        if mapped[: len(_MAGIC)] == _MAGIC:
            # A stream, with a directory behind it, which could name a batch a million times.
            data, whole = data[_START:], mapped[-len(_MAGIC) :] == _MAGIC
        # A stream that is cut between two batches would pass for a shorter one.
        if not whole:
            raise FormatError(f"{path} is no Arrow file, or it is truncated")
        reader = pa.ipc.open_stream(data)
        check_names(reader.schema)
        yield reader.schema, _mapped(reader, mapped, data)
    except EmbedpressError:
        raise
    except Exception as error:
        # What the parser raises on a corrupt file is no closed list.
        text = one_line(error)
        raise FormatError(f"{path} is not a readable Arrow file: {text}") from error


def _mapped(reader: Any, mapped: mmap.mmap, data: pa.Buffer) -> Iterator[pa.RecordBatch]:
    for message in checked_messages(data):
        if message.type == "record batch":
            yield reader.read_next_batch()
            let_go(mapped)
