"""The type of a metadata column, found from its values before any row is written."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa

_BOOL, _INT, _FLOAT, _TEXT = 1, 2, 4, 8
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")


class Column:
    """A column whose values are seen once to choose a type, then converted to it.

    Parameters
    ----------
    written : bool
        Whether the values were read as text (CSV), where numbers must be recognised. Only
        canonical ones are: ``007`` and ``1e400`` stay strings, so nothing is lost.
    """

    def __init__(self, *, written: bool) -> None:
        self._written = written
        self._seen = 0

    def see(self, value: object) -> None:
        """Take one value into account."""
        if self._seen & _TEXT or value is None:
            return
        if self._written and value == "":
            return
        self._seen |= _kind(value, written=self._written)

    @property
    def type(self) -> pa.DataType:
        """The Arrow type that holds every value seen: bool, int64, float64 or string."""
        if self._seen == _BOOL:
            return pa.bool_()
        if self._seen == _INT:
            return pa.int64()
        if self._seen and not self._seen & ~(_INT | _FLOAT):
            return pa.float64()
        return pa.string()

    def array(self, values: list[Any]) -> pa.Array:
        """Convert values, None for missing ones, to an array of the column's type."""
        return pa.array([self._convert(value) for value in values], self.type)

    def _convert(self, value: Any) -> Any:
        if value is None:
            return None
        if pa.types.is_string(self.type):
            return value if isinstance(value, str) else _written_out(value)
        if self._written and value == "":
            return None
        if pa.types.is_int64(self.type):
            return int(value)
        return value if pa.types.is_boolean(self.type) else float(value)


def _kind(value: object, *, written: bool) -> int:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, int):
        return _INT if -(2**63) <= value < 2**63 else _TEXT
    if isinstance(value, float):
        return _FLOAT
    if written and isinstance(value, str):
        if _INTEGER.match(value):
            return _kind(int(value), written=False)
        if _NUMBER.match(value) and abs(float(value)) != float("inf"):
            return _FLOAT
    return _TEXT


def _written_out(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).strip('"')
