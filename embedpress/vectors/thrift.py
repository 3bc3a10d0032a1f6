"""Structs of Thrift's compact protocol, as Parquet writes its headers and footer."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from embedpress.vectors.varint import varint

_TRUE, _FALSE = 1, 2
_FIXED = {3: 1, 7: 8}
_INTEGERS = (4, 5, 6)
_BYTES, _LIST, _SET, _STRUCT = 8, 9, 10, 12
_DEEPEST = 8

Fields = dict[int, Any]


def read_struct(data: mmap.mmap, at: int, end: int, depth: int = 0) -> tuple[Fields, int]:
    """A struct's fields by their numbers, and where what follows it starts.

    Integers, bytes, lists and structs; flags and fractions are passed over.

    Raises
    ------
    ValueError
        It does not end before `end`, is nested too deeply, or has a field twice.
    """
    fields: Fields = {}
    number = 0
    while at < end and depth < _DEEPEST:
        head, at = data[at], at + 1
        if head == 0:
            return fields, at
        kind, step = head & 15, head >> 4
        if step == 0:  # a number of its own, which nothing in Parquet needs: it could come twice
            raise ValueError("a header has fields that Parquet has not")
        number += step
        if kind not in (_TRUE, _FALSE):
            fields[number], at = _value(data, kind, at, end, depth)
    raise ValueError("a header does not end")


def read_items(data: mmap.mmap, at: int, end: int, wanted: int) -> Iterator[Any]:
    """What is in one list among a struct's fields, item by item; see :func:`read_struct`."""
    number = 0
    while at < end:
        head, at = data[at], at + 1
        if head == 0:
            return
        kind, step = head & 15, head >> 4
        if step == 0:
            raise ValueError("a header has fields that Parquet has not")
        number += step
        if number == wanted and kind == _LIST:
            inner, count, at = _list_head(data, at, end)
            for _ in range(count):
                value, at = _value(data, inner, at, end, 0)
                yield value
        elif kind not in (_TRUE, _FALSE):
            _, at = _value(data, kind, at, end, 0)
    raise ValueError("a header does not end")


def _value(data: mmap.mmap, kind: int, at: int, end: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        value, at = varint(data, at, end)
        return (value >> 1) ^ -(value & 1), at
    if kind == _BYTES:
        size, at = varint(data, at, end)
        if size > end - at:
            raise ValueError("a header does not end")
        return data[at : at + size], at + size
    if kind == _STRUCT:
        return read_struct(data, at, end, depth + 1)
    if kind in (_LIST, _SET):
        return _list(data, at, end, depth)
    if kind in _FIXED:
        return None, at + _FIXED[kind]
    raise ValueError("a header has fields that Parquet has not")


def _list(data: mmap.mmap, at: int, end: int, depth: int) -> tuple[list[Any], int]:
    kind, count, at = _list_head(data, at, end)
    if kind in (_TRUE, _FALSE):
        return [], at + count
    values = []
    for _ in range(count):
        value, at = _value(data, kind, at, end, depth)
        values.append(value)
    return values, at


def _list_head(data: mmap.mmap, at: int, end: int) -> tuple[int, int, int]:
    if at >= end:
        raise ValueError("a header does not end")
    head, at = data[at], at + 1
    kind, count = head & 15, head >> 4
    if count == 15:
        count, at = varint(data, at, end)
    if count > end - at:  # each takes a byte or more
        raise ValueError("a header does not end")
    return kind, count, at
