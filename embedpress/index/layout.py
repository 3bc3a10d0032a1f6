"""Which FAISS index: parsed from a factory string, or chosen by the number of vectors."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from embedpress.errors import UsageError

EXHAUSTIVE_BELOW = 200_000
"""Vectors up to which scanning all codes takes few milliseconds and misses nothing."""
GRAPH_FROM = 2048
"""Lists from which their centroids are found through a graph (HNSW) rather than one by one."""
GRAPH_LINKS = 32
_NARROWEST = 32

# One thread of a server's processor, as benchmarks/scale_index.py measures them.
_NS_PER_CODE_BYTE = 0.45
_NS_PER_FLOAT = 0.1


@dataclass(frozen=True)
class Layout:
    """How the vectors are laid out for a search.

    Attributes
    ----------
    n_lists : int
        Lists of an inverted file; 0 for an exhaustive scan.
    links : int
        Links a centroid in a graph of them; 0 for scanning the centroids.
    why : str
        What decided, for the person who asked for "auto".
    """

    n_lists: int = 0
    links: int = 0
    why: str = ""

    @property
    def name(self) -> str:
        """The factory string of this layout."""
        if not self.n_lists:
            return "Flat"
        return f"IVF{self.n_lists}" + (f"_HNSW{self.links}" if self.links else "")


def parse_factory(text: str, count: int) -> Layout:
    """Read a factory string.

    Parameters
    ----------
    text : str
        "auto", "Flat" (scan everything), "IVF<n>" (n inverted lists) or "IVF<n>_HNSW<m>" (their
        centroids in a graph of m links). A tail such as ",PQ32" is allowed and ignored: the learnt
        codebooks are always the quantizer.
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
        return choose(count)
    if head.lower() == "flat" or re.fullmatch(r"PQ\d+(x8)?", head):
        return Layout()
    found = re.fullmatch(r"IVF(\d{1,7})(?:_HNSW(\d{1,3}))?", head)
    if not found or not int(found[1]) or found[2] in ("0", "1"):
        raise UsageError(f"factory {text!r} is not auto, Flat, IVF<lists> or IVF<lists>_HNSW32")
    if int(found[1]) > count:
        raise UsageError(f"factory {text!r} asks for more lists than the {count} vectors")
    return Layout(int(found[1]), int(found[2] or 0))


def choose(count: int) -> Layout:
    """The layout for a number of vectors, with the reason."""
    if count <= EXHAUSTIVE_BELOW:
        why = f"{count:,} codes are few enough to scan them all, which misses nothing"
        return Layout(why=why)
    n_lists = 2 ** round(math.log2(4 * math.sqrt(count)))
    layout = Layout(n_lists, GRAPH_LINKS if n_lists >= GRAPH_FROM else 0)
    why = f"scanning {count:,} codes is slow, so they lie in {n_lists:,} lists"
    if layout.links:
        why += ", whose centroids are found through a graph"
    return replace(layout, why=why)


def size_of(layout: Layout, count: int, code_size: int, dim: int) -> int:
    """Bytes of FAISS's file, to a few percent.

    Parameters
    ----------
    layout : Layout
    count : int
        Vectors.
    code_size : int
        Bytes of a vector's stored form.
    dim : int
        Dimensions that a query has in the scan.
    """
    if not layout.n_lists:
        return count * code_size
    centroid = 2 * dim + 8 * layout.links + 20 if layout.links else 4 * dim
    return count * (code_size + 8) + layout.n_lists * centroid


def graph_width(nprobe: int) -> int:
    """How many centroids a graph of them is to keep in view (efSearch) to find so many lists.

    With as many as the lists it misses some of the last: at ten million vectors, so many that no
    number of lists held .99 of the hits of a scan.
    """
    return max(_NARROWEST, 2 * nprobe)


def query_ms(layout: Layout, count: int, code_size: int, dim: int, nprobe: int) -> float:
    """About how long a query takes on one thread, in milliseconds.

    Parameters
    ----------
    layout : Layout
    count, code_size, dim : int
        As for :func:`size_of`.
    nprobe : int
        Lists that are visited.
    """
    tables = 256 * dim * _NS_PER_FLOAT
    per_code = code_size * _NS_PER_CODE_BYTE
    if not layout.n_lists:
        return (tables + count * per_code) / 1e6
    compared = layout.n_lists
    if layout.links:
        compared = min(compared, layout.links * graph_width(nprobe))
    visited = min(1.0, nprobe / layout.n_lists) * count
    return (tables + compared * dim * _NS_PER_FLOAT + visited * per_code) / 1e6
