from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedpress.errors import InputError, UsageError
from embedpress.vectors import check_codes, check_unique, check_vectors

FINITE = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(FINITE)
def test_float32_comes_back_as_it_was(x: np.ndarray) -> None:
    checked = check_vectors(x)
    assert checked.dtype == np.float32
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, x)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", "bfloat16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_dtypes_and_layouts_keep_their_values(dtype: str, order: str) -> None:
    values = np.arange(-12, 12).reshape(4, 6) / (1 if dtype == "i1" else 4)
    if dtype == "bfloat16":
        found = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    else:
        found = np.dtype(dtype)
    checked = check_vectors(np.asarray(values.astype(found), order=order))
    assert checked.dtype == np.dtype("=f4")
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, values)


def test_lists_of_floats_are_taken() -> None:
    np.testing.assert_array_equal(check_vectors([[1.0, 2.5]]), [[1, 2.5]])


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 2), object),
        np.ones((2, 2), np.int64),
        np.ones((2, 2), np.uint8),
        np.ones((2, 2), bool),
        np.ones((2, 2), np.complex64),
        np.ones((2, 2), np.longdouble),
        np.array([["a", "b"]]),
        np.zeros(2, [("a", "f4")]),
        np.zeros((2, 2), "M8[s]"),
        [[1.0], [1.0, 2.0]],
        [["a"]],
        None,
        [[1, 2]],
    ],
)
def test_other_dtypes_are_refused(x: object) -> None:
    with pytest.raises(InputError, match=r"dtype|not a matrix of numbers"):
        check_vectors(x)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must be 2-d"):
        check_vectors(np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="empty"):
        check_vectors(np.ones(shape, np.float32))


def test_a_wrong_dimension_is_named() -> None:
    with pytest.raises(InputError, match="queries have 3 dimensions, 4 were expected"):
        check_vectors(np.ones((2, 3), np.float32), dim=4, what="queries")


def test_a_masked_array_does_not_lose_its_mask_silently() -> None:
    with pytest.raises(InputError, match="masked"):
        check_vectors(np.ma.masked_equal(np.ones((2, 2)), 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
@pytest.mark.parametrize("metric", [None, "cosine", "ip", "l2"])
def test_the_first_bad_row_is_named(
    dtype: type, value: float, word: str, metric: str | None
) -> None:
    x = np.ones((5, 3), dtype)
    x[2, 1] = x[4, 0] = value
    with pytest.raises(InputError, match=rf"row 102 holds {word} \(dimension 1\)"):
        check_vectors(x, first_row=100, metric=metric)


def test_float64_that_float32_cannot_hold_is_refused() -> None:
    x = np.ones((3, 2))
    x[1, 0] = -1e300
    with pytest.raises(InputError, match=r"row 1 holds -1e\+300 .* too large for float32"):
        check_vectors(x)


def test_zero_rows_are_refused_under_cosine_alone() -> None:
    x = np.ones((4, 3), np.float32)
    x[3] = 0
    with pytest.raises(InputError, match="row 3 is all zeros"):
        check_vectors(x, metric="cosine")
    for metric in (None, "ip", "l2"):
        np.testing.assert_array_equal(check_vectors(x, metric=metric), x)


def test_rows_whose_length_float32_cannot_hold_are_refused_with_a_metric() -> None:
    x = np.ones((3, 2), np.float32)
    x[1] = 1e30
    x[2] = 1e-30
    assert check_vectors(x).shape == (3, 2)
    with pytest.raises(InputError, match="row 1 is so long"):
        check_vectors(x, metric="ip")
    with pytest.raises(InputError, match="row 1 is too short"):
        check_vectors(x[1:] * [[1e-30], [1]], metric="cosine", first_row=0)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="euclid"):
        check_vectors(np.ones((1, 1), np.float32), metric="euclid")


@given(FINITE, st.data())
def test_a_nan_anywhere_is_found(x: np.ndarray, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(x) - 1))
    x = x.copy()
    x[row, data.draw(st.integers(0, x.shape[1] - 1))] = np.nan
    with pytest.raises(InputError, match=f"row {row} "):
        check_vectors(x)


def test_codes() -> None:
    codes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(check_codes(np.asfortranarray(codes), code_size=4), codes)
    for bad in (codes.astype(np.int16), codes[0], codes[:0], codes[:, :0]):
        with pytest.raises(InputError):
            check_codes(bad)
    with pytest.raises(InputError, match="5 were expected"):
        check_codes(codes, code_size=5)


@given(st.lists(st.one_of(st.integers(-3, 40)), max_size=12), st.booleans())
def test_unique_agrees_with_a_set(values: list[int], text: bool) -> None:
    ids = pa.array(values, pa.int64())
    ids = ids.cast(pa.string()) if text else ids
    for array in (ids, pa.chunked_array([ids[:3], ids[3:]])):
        if len(set(values)) == len(values):
            check_unique(array)
        else:
            row = next(i for i, v in enumerate(values) if v in values[:i])
            with pytest.raises(InputError, match=f"of row {row} is already"):
                check_unique(array)


def test_a_null_id_is_named() -> None:
    with pytest.raises(InputError, match="row 1 is null"):
        check_unique(pa.array(["a", None]))
