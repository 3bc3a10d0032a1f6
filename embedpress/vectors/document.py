"""The small JSON file by which a folder says what it is; nobody vouches for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, UsageError

LIMIT = 1 << 20
"""Bytes that are read; a real one has a few hundred."""


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
    try:
        if file.stat().st_size > LIMIT:
            raise FormatError(f"{file} is too large to describe {a_or_an(kind)}")
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{folder} is not {a_or_an(kind)}: it has no {name}") from None
    except FormatError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{file} cannot be read: {error}") from None
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


def a_or_an(word: str) -> str:
    """The word with its article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
