"""The journal of a running job: what of it is done, one synced line each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from embedpress.errors import FormatError
from embedpress.vectors.document import parse_json
from embedpress.vectors.files import storage_errors, write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E", bound="DataclassInstance")


class Journal(Generic[E]):
    """A file of JSON lines: the first says which job it is, each further one what is done.

    A line that does not parse, as a kill in the middle of writing leaves it, counts as never
    written.

    Parameters
    ----------
    path
        The file.
    parse
        Makes an entry of the values of a line, or None where they are none.
    """

    def __init__(self, path: Path, parse: Callable[[dict[str, Any]], E | None]) -> None:
        self.path = path
        self._parse = parse

    def read(self) -> tuple[dict[str, Any], list[E]]:
        """Return the header, and the entries in the order in which they were written.

        Raises
        ------
        FormatError
            If the header is not one.
        """
        with storage_errors(self.path, "read"):
            lines = self.path.read_bytes().split(b"\n")
        header = _values(lines[0])
        if header is None or not isinstance(header.get("identity"), dict):
            raise FormatError(f"{self.path} is corrupt: delete its folder and start again")
        found = (None if values is None else self._parse(values) for values in map(_values, lines))
        return header, [entry for entry in found if entry is not None]

    def rewrite(self, header: Mapping[str, Any], entries: Iterable[E]) -> None:
        """Write header and entries anew, so that lines to come follow a whole one."""
        write_atomic(self.path, "".join([_line(header), *(_line(asdict(e)) for e in entries)]))

    def append(self, entry: E) -> None:
        """Add one entry, and return when it is on the disk."""
        with storage_errors(self.path), self.path.open("ab") as file:
            file.write(_line(asdict(entry)).encode())
            file.flush()
            os.fsync(file.fileno())


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False) + "\n"


def _values(line: bytes) -> dict[str, Any] | None:
    try:
        values = parse_json(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
