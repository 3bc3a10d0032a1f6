"""JSON files, such as the small one by which a folder says what it is; nobody vouches for them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, UsageError

LIMIT = 1 << 20
"""Bytes of a description that are read; a real one has a few hundred."""
_LARGEST = 16 << 20
_DEEPEST = 100


def parse_json(text: str | bytes) -> Any:
    """Values of JSON text, UTF-8, that can be written as JSON again.

    Raises
    ------
    ValueError
        Not JSON; NaN, infinity, half a surrogate pair; nested more than 100 deep.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a surrogate pair (\\ud...)") from None
    return value


def read_json(file: Path, limit: int = _LARGEST) -> Any:
    """Values of a JSON file; see :func:`parse_json`.

    Raises
    ------
    FormatError
        It is not there, no regular file (a pipe would be waited for, a device never ends),
        larger than `limit` bytes, or not JSON.
    """
    try:
        if not file.is_file():
            raise FormatError(f"{file} is not there, or not a file")
        with file.open("rb") as opened:
            content = opened.read(limit + 1)
    except OSError as error:
        raise FormatError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise FormatError(f"{file} is larger than {limit} bytes")
    try:
        return parse_json(content)
    except ValueError as error:
        raise FormatError(f"{file} is not valid JSON: {error}") from None


def read_document(
    folder: Path, name: str, *, kind: str, version: int | tuple[int, ...]
) -> dict[str, Any]:
    """Read the file that makes a folder a compressor or an index.

    Parameters
    ----------
    folder
        Where it lies.
    name
        Of the file.
    kind
        What it must say of itself under "kind".
    version
        The "format_version" that this code reads, or several.

    Returns
    -------
    dict
        Its fields; the caller checks all but the two.

    Raises
    ------
    UsageError
        No such folder.
    FormatError
        No such file in it, too large, not JSON, of another kind or version.
    """
    if not folder.is_dir():
        raise UsageError(f"no {kind} folder at {folder}")
    file = folder / name
    if not file.exists():
        raise FormatError(f"{folder} is not {a_or_an(kind)}: it has no {name}")
    data = read_json(file, LIMIT)
    if not isinstance(data, dict) or data.get("kind") != kind:
        raise FormatError(f"{file} does not describe {a_or_an(kind)}")
    versions = (version,) if isinstance(version, int) else version
    found = data.get("format_version")
    if type(found) is not int or found not in versions:
        raise FormatError(
            f"{file} has format version {found!r}; "
            f"this embedpress reads version {' and '.join(map(str, versions))}"
        )
    return data


def _check_depth(value: Any) -> None:
    """Raise `ValueError` for lists and objects nested more than 100 deep.

    What is read within Python's limit of recursion may be too deep to be written.
    """
    level, depth = [value] if isinstance(value, dict | list) else [], 0
    while level:
        if (depth := depth + 1) > _DEEPEST:
            raise ValueError("it is nested too deeply")
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for values in inner for one in values if isinstance(one, dict | list)]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON: write null")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large for a number")
    return value


def a_or_an(word: str) -> str:
    """The word with its article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
