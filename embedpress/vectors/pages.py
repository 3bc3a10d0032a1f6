"""Pages of a Parquet column: their headers, walked through before anything is unpacked.

The footer says how large a column is, and nothing makes it tell the truth; a page is unpacked by
what its own header says.
"""

from __future__ import annotations

import mmap
from array import array
from dataclasses import dataclass

import numpy as np

from embedpress.vectors.thrift import Fields, read_struct

_DATA, _DATA_V2 = 0, 3
_HEADERS = {_DATA: 5, _DATA_V2: 8}
"""Where in a page's header that of its kind stands."""
_ENCODING = {_DATA: 2, _DATA_V2: 4}
_DELTA_BYTE_ARRAY = 7
_MOST_EMPTY = 100


@dataclass
class Pages:
    """The pages of a column chunk, or of several, as their headers say.

    Attributes
    ----------
    values : array of int
        Values of each data page, nulls counted.
    sizes : array of int
        Its bytes when unpacked, likewise.
    dictionary : int
        Bytes of the values that are stored once and named by number, unpacked; of several chunks,
        the most.
    shares_beginnings : bool
        Whether texts are stored as what they add to the one before.
    """

    values: array[int]
    sizes: array[int]
    dictionary: int
    shares_beginnings: bool

    @property
    def unpacked(self) -> int:
        """Bytes of all pages."""
        return sum(self.sizes) + self.dictionary

    def extend(self, following: Pages) -> None:
        """Add the pages of the next chunk."""
        self.values.extend(following.values)
        self.sizes.extend(following.sizes)
        self.dictionary = max(self.dictionary, following.dictionary)
        self.shares_beginnings |= following.shares_beginnings

    def most_bytes(self, values: int) -> int:
        """What as many values on end take, at most, wherever they start."""
        ends, sizes = np.cumsum(self.values), np.cumsum([0, *self.sizes])
        # The first value may be the last of its page.
        last = np.searchsorted(ends, ends + values - 1)
        last = np.minimum(last, len(ends) - 1)
        return int((sizes[last + 1] - sizes[:-1]).max(initial=0))


def walk_pages(data: mmap.mmap, start: int, size: int, count: int) -> Pages:
    """Walk through the column chunk of `count` values at `start`.

    Raises
    ------
    ValueError
        Headers that cannot be so, or with other values than `count`.
    """
    at, end = start, start + size
    if not 0 <= start <= end <= len(data):
        raise ValueError("a column lies beyond the end of the file")
    values, sizes = array("q"), array("q")
    seen = dictionary = empty = 0
    shared = False
    while seen < count:
        fields, at = read_struct(data, at, end)
        kind, unpacked, packed = (_size_in(fields, number) for number in (1, 2, 3))
        inner = fields.get(_HEADERS.get(kind, -1))
        n = _size_in(inner, 1) if isinstance(inner, dict) else 0
        if packed > end - at:
            raise ValueError("a page lies beyond the end of its column")
        at += packed
        if kind in (_DATA, _DATA_V2) and isinstance(inner, dict):
            values.append(n)
            sizes.append(unpacked)
            seen += n
            shared = shared or inner.get(_ENCODING[kind]) == _DELTA_BYTE_ARRAY
        else:
            dictionary += unpacked
            n = 0
        empty += n == 0
        if empty > _MOST_EMPTY:
            raise ValueError("a column has many pages without values")
    if seen != count:
        raise ValueError(f"the pages of a column hold {seen} values, its footer says {count}")
    return Pages(values, sizes, dictionary, shared)


def _size_in(fields: Fields, number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError("a page's header cannot be so")
    return value
