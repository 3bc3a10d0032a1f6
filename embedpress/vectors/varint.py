"""Whole numbers of as many bytes as they need, as protocol buffers and Thrift write them."""

from __future__ import annotations

import mmap


def varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where what follows it starts.

    Raises
    ------
    ValueError
        It does not end before `end`, or is of over 70 bits.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("it is truncated")
