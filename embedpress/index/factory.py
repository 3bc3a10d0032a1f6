"""Which FAISS index: parsed from a factory string, or chosen by the number of vectors."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from embedpress.errors import UsageError

EXHAUSTIVE_BELOW = 200_000
"""Vectors up to which scanning all codes takes few milliseconds and misses nothing."""


@dataclass(frozen=True)
class Layout:
    """Lists of an inverted file, 0 for an exhaustive scan, and how many a search visits."""

    n_lists: int
    nprobe: int

    @property
    def name(self) -> str:
        """The factory string of this layout."""
        return f"IVF{self.n_lists}" if self.n_lists else "Flat"


def parse_factory(text: str, count: int) -> Layout:
    """Read a factory string.

    Parameters
    ----------
    text : str
        "auto", "Flat" (scan everything) or "IVF<n>" (n inverted lists). A tail such as
        ",PQ32" is allowed and ignored: the learnt codebooks are always the quantizer.
    count : int
        Vectors to index.

    Returns
    -------
    Layout

    Raises
    ------
    UsageError
        Anything else, or more lists than vectors.
    """
    head = text.split(",", 1)[0].strip()
    if head.lower() == "auto":
        if count <= EXHAUSTIVE_BELOW:
            return Layout(0, 0)
        return _inverted(2 ** round(math.log2(4 * math.sqrt(count))))
    if head.lower() == "flat" or re.fullmatch(r"PQ\d+(x8)?", head):
        return Layout(0, 0)
    found = re.fullmatch(r"IVF(\d{1,7})", head)
    if not found or not int(found[1]):
        raise UsageError(f"factory {text!r} is not auto, Flat or IVF<number of lists>")
    if int(found[1]) > count:
        raise UsageError(f"factory {text!r} asks for more lists than the {count} vectors")
    return _inverted(int(found[1]))


def _inverted(n_lists: int) -> Layout:
    return Layout(n_lists, min(n_lists, max(8, n_lists // 16)))
