from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedpress.vectors.ids as ids_module
from embedpress.errors import InputError
from embedpress.vectors.ids import UniqueIds, normal_ids


def first_duplicate(arrays: list[pa.Array]) -> tuple[int, int, Any] | None:
    """Feed arrays to the check: (array, position, id) of what it finds first."""
    unique = UniqueIds()
    for number, array in enumerate(arrays):

        def earlier(number: int = number) -> Iterator[pa.Array]:
            yield from arrays[:number]

        found = unique.add(array, earlier)
        if found is not None:
            return (number, *found)
    return None


def expected(lists: list[list[Any]]) -> tuple[int, int, Any] | None:
    seen: set[Any] = set()
    for number, values in enumerate(lists):
        for position, value in enumerate(values):
            if value in seen:
                return number, position, value
            seen.add(value)
    return None


RUNS = st.builds(lambda low, n: list(range(low, low + n)), st.integers(-9, 60), st.integers(1, 9))
LISTS = st.lists(st.one_of(RUNS, st.lists(st.integers(-9, 60), max_size=6)), max_size=9)


@given(LISTS, st.booleans())
@settings(max_examples=120)
def test_a_stream_is_unique_when_a_set_says_so(lists: list[list[int]], text: bool) -> None:
    if text:
        words = [[f"id{v}" for v in values] for values in lists]
        assert first_duplicate([pa.array(w, pa.string()) for w in words]) == expected(words)
    else:
        assert first_duplicate([pa.array(v, pa.int64()) for v in lists]) == expected(lists)


def test_equal_hashes_are_not_taken_for_equal_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(ids: pa.Array) -> np.ndarray:
        return np.array([len(v) for v in ids.to_pylist()], np.int64)

    monkeypatch.setattr(ids_module, "_hashes", poor)
    arrays = [pa.array(v) for v in (["a", "b"], ["c", "dd"], ["d", "b"])]
    assert first_duplicate(arrays[:2]) is None
    assert first_duplicate(arrays) == (2, 1, "b")


def test_row_numbers_take_no_memory() -> None:
    unique = UniqueIds()
    for low in range(0, 100_000, 1000):
        assert unique.add(pa.array(np.arange(low, low + 1000)), lambda: iter(())) is None
    assert unique._ranges == [(0, 99_999)]
    assert unique._runs == []


def test_extreme_integers() -> None:
    low, high = -(2**63), 2**63 - 1
    assert first_duplicate([pa.array([low, high]), pa.array([high - 1]), pa.array([0])]) is None
    assert first_duplicate([pa.array([low, high]), pa.array([high])]) == (1, 0, high)


def test_ids_become_int64_or_string() -> None:
    for found in (pa.int8(), pa.uint32(), pa.int64(), pa.uint64()):
        assert normal_ids(pa.array([1, 2], found)).equals(pa.array([1, 2], pa.int64()))
    for found in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        assert normal_ids(pa.array(["a", "b"]).cast(found)).equals(pa.array(["a", "b"]))
    chunked = pa.chunked_array([["a"], ["b"]])
    assert normal_ids(chunked).equals(pa.array(["a", "b"]))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (pa.array([1.0]), "must be integers or strings"),
        (pa.array([b"x"]), "must be integers or strings"),
        (pa.array([True]), "must be integers or strings"),
        (pa.array([2**63], pa.uint64()), "do not all fit int64"),
        (pa.array(["a", None]), "row 8 is null"),
    ],
)
def test_other_ids_are_refused(ids: pa.Array, text: str) -> None:
    with pytest.raises(InputError, match=text):
        normal_ids(ids, first_row=7)
