"""What a request asks about (texts, vectors, pictures), checked before it takes a place."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError
from embedpress.serve.refusal import RequestError
from embedpress.vectors import check_vectors

Floats = NDArray[np.float32]
LONGEST_TEXT = 100_000
MOST_PICTURES = 32


def texts_of(value: Any, *, param: str, most: int) -> list[str]:
    """One text or a list of them.

    Raises
    ------
    RequestError
        422 for what is no text; 413 for too many or too long ones.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise RequestError(422, f"{param} must be a text or a list of texts", param=param)
    _check_count(len(texts), most, param)
    if any(type(text) is int or isinstance(text, list) for text in texts):
        raise RequestError(
            422,
            f"{param} holds token numbers, which are of another tokenizer than this model's: "
            "send text (in LangChain: check_embedding_ctx_length=False)",
            param=param,
            code="token_input",
        )
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(422, f"{param}[{place}] is not a text", param=param)
        if not text.strip():
            raise RequestError(422, f"{param}[{place}] is empty", param=param)
        if len(text) > LONGEST_TEXT:
            raise RequestError(
                413, f"{param}[{place}] is longer than {LONGEST_TEXT:,} characters", param=param
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(
                422, f"{param}[{place}] holds half a surrogate pair: it is no text", param=param
            ) from None
    return texts


def vectors_of(value: Any, *, param: str, dim: int, metric: str, most: int) -> Floats:
    """One vector or a list of them: numbers, or base64 of little-endian float32.

    Returns
    -------
    ndarray of shape (n, dim), float32

    Raises
    ------
    RequestError
        422 for other shapes, NaN, infinity, what is no base64; 413 for too many.
    """
    if isinstance(value, str):
        rows = _floats_of(value, param, dim)
    elif isinstance(value, list) and value and all(isinstance(row, str) for row in value):
        _check_count(len(value), most, param)
        rows = np.concatenate([_floats_of(row, param, dim) for row in value])
    elif isinstance(value, list) and value:
        _check_count(len(value) if isinstance(value[0], list) else 1, most, param)
        rows = _matrix_of(value, param)
    else:
        raise RequestError(422, f"{param} must be a vector or a list of vectors", param=param)
    _check_count(len(rows), most, param)
    try:
        return check_vectors(rows, dim=dim, metric=metric, what=param)
    except InputError as error:
        raise RequestError(422, str(error), param=param) from None


def pictures_of(value: Any, *, param: str, most: int) -> list[bytes]:
    """One picture or a list of them, as the bytes of their files.

    Raises
    ------
    RequestError
        422 for what is no base64; 413 for too many.
    """
    pictures = [value] if isinstance(value, str) else value
    if not isinstance(pictures, list) or not pictures:
        raise RequestError(422, f"{param} must be the base64 of a picture, or a list", param=param)
    _check_count(len(pictures), min(most, MOST_PICTURES), param)
    return [_bytes_of(picture, param) for picture in pictures]


def _check_count(count: int, most: int, param: str) -> None:
    if count > most:
        raise RequestError(413, f"{param} has {count:,} inputs: send at most {most:,}", param=param)


def _matrix_of(value: list[Any], param: str) -> NDArray[Any]:
    try:
        rows = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise RequestError(422, f"{param}: its rows are of unequal length", param=param) from None
    if rows.dtype.kind not in "iuf":
        raise RequestError(422, f"{param} holds something else than numbers", param=param)
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float64)
    return rows[None] if rows.ndim == 1 else rows


def _floats_of(text: str, param: str, dim: int) -> Floats:
    raw = _bytes_of(text, param)
    if not raw or len(raw) % (4 * dim):
        raise RequestError(
            422,
            f"{param}: base64 of {len(raw)} bytes, where a vector of {dim} float32 has {4 * dim}",
            param=param,
        )
    return np.frombuffer(raw, "<f4").reshape(-1, dim)


def _bytes_of(text: Any, param: str) -> bytes:
    if isinstance(text, str):
        if text.startswith("data:"):
            text = text.partition(",")[2]
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise RequestError(422, f"{param} is not valid base64", param=param)
