from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpress.errors import UsageError
from embedpress.vectors import parse_size, rows_within
from embedpress.vectors.budget import Budget, give_back, resident_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1024, 1024),
        ("1", 1),
        ("512M", 512 * 2**20),
        ("2G", 2 * 2**30),
        ("2g", 2 * 2**30),
        (" 3 KiB ", 3072),
        ("1.5k", 1536),
        ("7B", 7),
        ("1TB", 2**40),
    ],
)
def test_parse_size(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "0", 0, -5, "1X", "1e9", "nan", "١", True, None])
def test_parse_size_refuses(text: object) -> None:
    with pytest.raises(UsageError):
        parse_size(text)  # type: ignore[arg-type]


def test_a_big_size_is_exact() -> None:
    assert parse_size("123456789012345678") == 123456789012345678


@given(st.integers(1, 10**12), st.integers(1, 10**6), st.integers(1, 10**6))
def test_rows_within_is_the_most_that_fit(budget: int, row: int, most: int) -> None:
    if budget < row:
        with pytest.raises(UsageError, match="does not hold one row"):
            rows_within(budget, row, at_most=most)
        return
    rows = rows_within(budget, row, at_most=most)
    assert 1 <= rows <= most
    assert rows * row <= budget
    assert rows == most or (rows + 1) * row > budget


def test_a_budget_counts_what_came_after_it() -> None:
    budget = Budget("1G")
    before = budget.left("this")
    held = np.ones(2**24)
    assert before - budget.left("this") > 0.9 * held.nbytes
    assert budget.left("this", 100) <= budget.left("this") + held.nbytes
    with pytest.raises(UsageError, match=r"budget of 1024M is too small: this takes \d+M at least"):
        budget.left("this", 2**30)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library keeps what it has")
def test_gaps_between_what_is_kept_are_given_back() -> None:
    # Too small to be mapped one by one, and every fiftieth stays.
    pieces = [bytearray(100_000) for _ in range(2_000)]
    kept = pieces[::50]
    held = resident_bytes()
    del pieces
    give_back()
    assert held - resident_bytes() > 100e6
    assert len(kept) == 40
    give_back()
