"""Memory budgets: sizes as people write them, and the rows that fit in one."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from embedpress.errors import UsageError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *([KMGT]?)(?:I?B)?", re.ASCII)


def parse_size(text: str | int) -> int:
    """Turn a size such as ``"2G"`` into bytes.

    Parameters
    ----------
    text
        A whole number of bytes, or a number with one of the units K, M, G, T (powers of 1024;
        ``KB`` and ``KiB`` mean the same as ``K``), in upper or lower case.

    Returns
    -------
    int
        The size in bytes, at least 1.

    Raises
    ------
    UsageError
        If the text is not a size, or the size is less than one byte.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        found = _SIZE.fullmatch(text.strip().upper()) if isinstance(text, str) else None
        if found is None:
            raise UsageError(f"{text!r} is not a size: write it as 512M or 2G")
        size = (
            int(float(found[1]) * _UNITS[found[2]])
            if "." in found[1]
            else (int(found[1]) * _UNITS[found[2]])
        )
    if size < 1:
        raise UsageError(f"a size must be at least one byte, not {text!r}")
    return size


def rows_within(budget_bytes: int, bytes_per_row: int, *, at_most: int) -> int:
    """Say how many rows fit in a memory budget.

    Parameters
    ----------
    budget_bytes
        Memory to spend, in bytes.
    bytes_per_row
        What one row takes, in bytes.
    at_most
        Upper limit of the answer, in rows.

    Returns
    -------
    int
        Between 1 and `at_most` rows.

    Raises
    ------
    UsageError
        If not even one row fits, or an argument is not positive.
    """
    if bytes_per_row < 1 or at_most < 1:
        raise UsageError("bytes_per_row and at_most must be at least 1")
    if budget_bytes < bytes_per_row:
        raise UsageError(
            f"a memory budget of {budget_bytes} bytes does not hold one row of {bytes_per_row}"
            " bytes: raise it"
        )
    return min(budget_bytes // bytes_per_row, at_most)


class Budget:
    """What a process may take of the memory, and how much of it is left.

    Parameters
    ----------
    size
        As :func:`parse_size` takes it.

    Notes
    -----
    Counted is what the process has come to hold since the budget was made, and `BARE` for what
    it held before: an interpreter with the libraries. So a notebook full of other things is not
    turned away.
    """

    BARE = 192 * 2**20

    def __init__(self, size: str | int) -> None:
        self.size = parse_size(size)
        self._before = resident_bytes()

    def taken(self) -> int:
        """Bytes that were taken so far."""
        return max(0, resident_bytes() - self._before)

    def left(self, what: str, need: int = 0) -> int:
        """Bytes that are left besides `need`.

        Raises
        ------
        UsageError
            If nothing is; the message names `what` and the size that would do.
        """
        left = self.size - self.BARE - self.taken() - need
        if left <= 0:
            raise UsageError(
                f"a memory budget of {size_text(self.size)} is too small: {what} takes"
                f" {size_text(self.size - left)} at least"
            )
        return left


def resident_bytes() -> int:
    """Return the memory that this process holds, in bytes.

    Where the system does not tell it, the most that it ever held.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return peak_bytes()


def peak_bytes() -> int:
    """Return the most memory that this process ever held, in bytes."""
    try:
        # Not getrusage, which starts at what the parent held.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library (glibc) can.

    Arrays of ever other sizes leave gaps that it would otherwise keep: a long job would grow.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None


def size_text(size: int) -> str:
    """Write a size as people do, rounded up to whole MiB: ``"512M"``."""
    return f"{-(-size // 2**20)}M"
