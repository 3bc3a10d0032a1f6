"""Messages of an Arrow stream: what their buffers would unpack to, known before they are.

A message is described by a FlatBuffer, which pyarrow has checked but tells little of.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa

from embedpress.vectors import growth

_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY, _BATCH = 2, 3
_DATA = 1
"""Where a dictionary's message has its one batch."""
_BUFFERS, _COMPRESSION = 2, 3
_OLD = b"ARROW:experimental_compression"
"""By which compression was told of before it was in the format."""


def checked_messages(data: pa.Buffer) -> Iterator[pa.Message]:
    """The messages of a stream, none of which grows as no vectors do.

    Raises
    ------
    ValueError
        One that would.
    Exception
        Of pyarrow's: no stream, or one that is cut off.
    """
    for message in pa.ipc.MessageReader.open_stream(data):
        packed, unpacked = _sizes(message)
        far = unpacked > growth.SMALL and unpacked > growth.MAX_LIST_RATIO * packed
        if far or unpacked > max(growth.MOST_BYTES, growth.MAX_DENSE * packed):
            raise ValueError(
                f"a batch would grow from {packed} to {unpacked} bytes, as no vectors do"
            )
        yield message


def _sizes(message: pa.Message) -> tuple[int, int]:
    """Bytes of a message's body as it is, and when its buffers are unpacked."""
    head = memoryview(message.metadata)
    if not message.body:
        return 0, 0
    table = _at(head, 0)
    kind, batch = _field(head, table, _HEADER_TYPE), _field(head, table, _HEADER)
    batch = 0 if batch == 0 else _at(head, batch)
    if kind and head[kind] == _DICTIONARY and batch:
        batch = _field(head, batch, _DATA)
        batch = 0 if batch == 0 else _at(head, batch)
    elif not kind or head[kind] != _BATCH:
        batch = 0
    if _OLD in bytes(head):
        raise ValueError("it is compressed as no library does any more: write it again")
    packed = message.body.size
    if not batch or not _field(head, batch, _COMPRESSION):
        return packed, packed
    body, unpacked = memoryview(message.body), 0
    buffers = _at(head, _field(head, batch, _BUFFERS))
    (count,) = struct.unpack_from("<I", head, buffers)
    for place in range(count):
        start, size = struct.unpack_from("<qq", head, buffers + 4 + 16 * place)
        if size:
            (grown,) = struct.unpack_from("<q", body, start)
            if grown < -1:
                raise ValueError("a buffer has a length below zero")
            unpacked += size if grown == -1 else grown  # as it is
    return packed, unpacked


def _at(head: memoryview, place: int) -> int:
    """Where what is pointed to lies."""
    return int(place + struct.unpack_from("<I", head, place)[0])


def _field(head: memoryview, table: int, number: int) -> int:
    """Where a table's field lies; 0 where it has none."""
    layout = table - struct.unpack_from("<i", head, table)[0]
    size, place = struct.unpack_from("<H", head, layout)[0], 4 + 2 * number
    offset = struct.unpack_from("<H", head, layout + place)[0] if place < size else 0
    return int(table + offset) if offset else 0
