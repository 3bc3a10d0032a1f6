"""Ids: one type for all, and a check that a whole stream of them has no duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpress.errors import FormatError, InputError

Keys = npt.NDArray[np.int64]


def normal_ids(ids: pa.Array | pa.ChunkedArray, *, first_row: int = 0) -> pa.Array:
    """Turn an id column into one int64 or string array without nulls.

    Parameters
    ----------
    ids
        Integers of any width or strings, dictionary-encoded or not.
    first_row
        Number of the first row, for messages.

    Returns
    -------
    pyarrow.Array
        Of type int64 or string.

    Raises
    ------
    InputError
        If an id is null or does not fit, or the type is another.
    """
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if isinstance(array, pa.ChunkedArray):
        raise InputError("the ids of one batch hold more than 2 GB of text: use shorter ids")
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count:
        row = first_row + pc.index(array.is_null(), True).as_py()
        raise InputError(f"id of row {row} is null: every row needs an id of its own")
    if array.type in (pa.int64(), pa.string()):
        return array
    wanted = id_type(array.type)
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid:
        raise InputError(f"ids of type {array.type} do not all fit {wanted}") from None


def id_type(found: pa.DataType) -> pa.DataType:
    """Say which id type, int64 or string, a column of type `found` becomes."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_integer(found):
        return pa.int64()
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return pa.string()
    raise InputError(f"ids are of type {found}: they must be integers or strings")


class UniqueIds:
    """Check that a stream of id arrays holds no id twice.

    Memory: nothing to speak of for consecutive integers, as row numbers are, and 8 bytes an id
    otherwise. Strings are kept as 64-bit hashes; when two hashes are equal the ids themselves
    are read again, so that the answer is exact.
    """

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._runs: list[Keys] = []

    def add(
        self, ids: pa.Array, earlier: Callable[[], Iterable[pa.Array]]
    ) -> tuple[int, Any] | None:
        """Add the next ids of the stream.

        Parameters
        ----------
        ids
            int64 or string array, as :func:`normal_ids` gives it.
        earlier
            Gives all the ids added before, once more.

        Returns
        -------
        (int, id) or None
            Position in `ids` of the first one that was there before, and that id; None when
            all are new.
        """
        if len(ids) == 0:
            return None
        if pa.types.is_integer(ids.type):
            keys = ids.to_numpy(zero_copy_only=False)
            if _consecutive(keys):
                return self._add_range(keys)
        else:
            keys = _hashes(ids)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        seen = self._known(ordered)
        seen[1:] |= ordered[1:] == ordered[:-1]
        if seen.any():
            suspects = np.sort(order[seen])
            found = self._confirm(ids, suspects, earlier)
            if found is not None:
                return found
        self._keep(ordered)
        return None

    def _add_range(self, keys: Keys) -> tuple[int, int] | None:
        seen = self._known(keys)
        if seen.any():
            row = int(np.argmax(seen))
            return row, int(keys[row])
        first, last = int(keys[0]), int(keys[-1])
        if self._ranges and self._ranges[-1][1] + 1 == first:
            first = self._ranges.pop()[0]
        self._ranges.append((first, last))
        return None

    def _known(self, keys: Keys) -> npt.NDArray[np.bool_]:
        seen = np.zeros(len(keys), dtype=bool)
        low, high = int(keys[0]), int(keys[-1])
        for first, last in self._ranges:
            if first <= high and low <= last:
                seen |= (keys >= first) & (keys <= last)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            seen |= run[at] == keys
        return seen

    def _keep(self, ordered: Keys) -> None:
        # Runs are merged as in a binary counter, so that n ids cost O(n log n) in all.
        self._runs.append(ordered)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")
            self._runs.append(merged)

    @staticmethod
    def _confirm(
        ids: pa.Array, suspects: npt.NDArray[np.int64], earlier: Callable[[], Iterable[pa.Array]]
    ) -> tuple[int, Any] | None:
        among = ids.take(pa.array(suspects))
        known: set[Any] = set()
        for array in earlier():
            known.update(array.filter(pc.is_in(array, value_set=among)).to_pylist())
        repeat = first_repeat(ids)
        rows = [int(row) for row in suspects if ids[int(row)].as_py() in known]
        rows += [repeat[1]] if repeat is not None else []
        return (min(rows), ids[min(rows)].as_py()) if rows else None


def _consecutive(keys: Keys) -> bool:
    return int(keys[-1]) - int(keys[0]) == len(keys) - 1 and bool((np.diff(keys) == 1).all())


def _hashes(ids: pa.Array) -> Keys:
    # Python's own string hash is 64 bits wide and keyed anew in each process, so that no file
    # can be made to collide on purpose.
    try:
        return np.fromiter(map(hash, ids.to_pylist()), dtype=np.int64, count=len(ids))
    except UnicodeDecodeError:
        raise FormatError("ids are not valid UTF-8 text") from None


def check_unique(ids: pa.ChunkedArray | pa.Array) -> None:
    """Raise `InputError`, naming the id and its row, when an id appears twice or is null."""
    if ids.null_count:
        row = pc.index(ids.is_null(), True).as_py()
        raise InputError(f"id of row {row} is null: every row needs an id of its own")
    row_of = first_repeat(ids)
    if row_of is not None:
        first, row = row_of
        raise InputError(f"id {ids[row].as_py()!r} of row {row} is already that of row {first}")


def first_repeat(ids: pa.ChunkedArray | pa.Array) -> tuple[int, int] | None:
    """Find the first id that appears before it: both rows, or None when all differ."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    seen: dict[Any, int] = {}
    for row, value in enumerate(ids.to_pylist()):
        if value in seen:
            return seen[value], row
        seen[value] = row
    return None
