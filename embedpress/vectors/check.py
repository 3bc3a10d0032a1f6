"""Checks at the door: what is not a matrix of usable numbers does not come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpress.errors import InputError, UsageError, one_line

METRICS = ("cosine", "ip", "l2")
FloatArray = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.uint8]


def check_metric(metric: str) -> str:
    """Return `metric` when it is one of "cosine", "ip", "l2"; raise `UsageError` otherwise."""
    if metric not in METRICS:
        raise UsageError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    return metric


def check_vectors(
    x: Any,
    *,
    dim: int | None = None,
    metric: str | None = None,
    first_row: int = 0,
    what: str = "embeddings",
) -> FloatArray:
    """Check a matrix of vectors and return it as float32.

    Parameters
    ----------
    x
        Array of shape (n, d), n and d at least 1, of float16, float32, float64, bfloat16 or
        int8, in any byte order and memory layout. float16, bfloat16 and int8 are converted
        exactly, float64 is rounded to the nearest float32.
    dim
        The d that is expected, if any.
    metric
        "cosine", "ip" or "l2": with one, the squared length of every row must be a finite float32,
        and under "cosine" not zero.
    first_row
        Number of the first row, for messages.
    what
        What the rows are, for messages.

    Returns
    -------
    ndarray of float32, shape (n, d)
        C-contiguous, native byte order. It shares memory with `x` when `x` was so already.

    Raises
    ------
    InputError
        Naming the first bad row and what is wrong with it.
    """
    values = as_matrix(x, dim=dim, what=what)
    floats = to_float32(values)
    problem = first_problem(values, floats, metric)
    if problem is not None:
        row, text = problem
        raise InputError(f"{what}: row {first_row + row} {text}")
    return floats


def as_matrix(x: Any, *, dim: int | None, what: str) -> npt.NDArray[Any]:
    """Check the dtype and the shape of `x`, without looking at its values."""
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{what} are a masked array: fill or drop the masked values first")
    if hasattr(x, "tocsr"):
        raise InputError(f"{what} are a sparse matrix, which is not supported: give x.toarray()")
    try:
        values = np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what} are not a matrix of numbers: {one_line(error)}") from None
    check_dtype(values.dtype, what=what)
    if values.ndim != 2:
        raise InputError(
            f"{what} must be 2-d, of shape (rows, dimensions), not {values.ndim}-d {values.shape}. "
            "Reshape your data: one vector x is x[None]"
        )
    if values.shape[0] == 0 or values.shape[1] == 0:
        raise InputError(
            f"{what} are empty: {values.shape[0]} sample(s) and {values.shape[1]} feature(s) "
            f"(shape={values.shape}) while a minimum of 1 is required."
        )
    if dim is not None and values.shape[1] != dim:
        raise InputError(f"{what} have {values.shape[1]} dimensions, {dim} were expected")
    return values


def check_dtype(dtype: np.dtype[Any], *, what: str) -> None:
    """Raise `InputError` unless vectors of `dtype` can be used."""
    if (dtype.kind, dtype.itemsize) in {("f", 2), ("f", 4), ("f", 8), ("i", 1)}:
        return
    if dtype.name == "bfloat16":
        return
    hint = "convert them to float32 first"
    if dtype.kind == "c":
        hint = "Complex data not supported"
    if dtype.kind == "O":
        hint = "rows of unequal length, perhaps? " + hint
    raise InputError(
        f"{what} have dtype {dtype}, not float16, float32, float64, bfloat16 or int8: {hint}"
    )


def to_float32(values: npt.NDArray[Any]) -> FloatArray:
    """Convert a matrix to C-contiguous native float32; overflow becomes infinity."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def first_problem(
    values: npt.NDArray[Any], floats: FloatArray, metric: str | None
) -> tuple[int, str] | None:
    """Find the first row that cannot be used: its position and what is wrong with it."""
    if metric is not None:
        check_metric(metric)
    # One pass tells nearly all: a NaN or an infinity anywhere makes the sum of squares one too.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", floats, floats)
    suspect = ~np.isfinite(squares)
    if metric == "cosine":
        suspect |= squares == 0
    for row in np.flatnonzero(suspect):
        text = _problem_of(np.asarray(values[row]), floats[row], metric)
        if text is not None:
            return int(row), text
    return None


def _problem_of(value: npt.NDArray[Any], floats: FloatArray, metric: str | None) -> str | None:
    bad = np.flatnonzero(~np.isfinite(floats))
    if bad.size:
        column = int(bad[0])
        found = float(value[column])
        if np.isnan(found):
            return f"holds NaN (dimension {column}): repair or drop it"
        if np.isinf(found):
            return f"holds infinity (dimension {column}): repair or drop it"
        return f"holds {found!r} (dimension {column}), too large for float32: scale the data"
    if metric is None:
        return None
    if floats.any() and np.linalg.norm(floats.astype(np.float64)) > 1:
        return "is so long that its squared length overflows float32: scale the data"
    if not floats.any():
        return 'is all zeros, which has no direction under the metric "cosine": drop it'
    return 'is too short for the metric "cosine" (its squared length is 0 in float32): scale it'


def check_codes(x: Any, *, code_size: int | None = None) -> CodeArray:
    """Check a matrix of codes.

    Parameters
    ----------
    x
        Array of uint8 of shape (n, code_size), n and code_size at least 1.
    code_size
        The bytes a code that are expected, if any.

    Returns
    -------
    ndarray of uint8, shape (n, code_size)
        C-contiguous.

    Raises
    ------
    InputError
        If dtype or shape is another.
    """
    codes = np.asarray(x)
    if codes.dtype != np.uint8:
        raise InputError(f"codes have dtype {codes.dtype}, not uint8")
    if codes.ndim != 2 or codes.shape[0] == 0 or codes.shape[1] == 0:
        raise InputError(f"codes must be 2-d, of shape (rows, code_size), not {codes.shape}")
    if code_size is not None and codes.shape[1] != code_size:
        raise InputError(f"codes have {codes.shape[1]} bytes a row, {code_size} were expected")
    return np.ascontiguousarray(codes)
