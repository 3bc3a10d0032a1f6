"""Near-duplicates: groups of rows that are chained by pairs as near as a threshold, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import UsageError
from embedpress.evaluate.exact import Floats, Ids, unit_rows
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_metric, check_vectors

DEFAULT_COSINE = 0.95
QUERY_ROWS, BASE_ROWS = 1024, 8192
"""Compared at once: all of their pairs fit in memory, should all be near."""
DOUBT = 1e-5
"""Scores this near to the threshold are computed again in double precision."""
TOLERANCE = 1e-9

Blocks = Callable[[int, int], Iterator[Floats]]


@dataclass(frozen=True)
class Duplicates:
    """Rows grouped by nearness.

    Attributes
    ----------
    groups : ndarray, shape (n,), int64
        Group of each row, the largest group 0; -1 for a row that is near to no other.
    sizes : ndarray, shape (n_groups,), int64
        2 or more each.
    n_pairs : int
        Pairs as near as the threshold.
    """

    groups: Ids
    sizes: Ids
    n_pairs: int


def find_duplicates(
    x: Any,
    threshold: float | None = None,
    *,
    metric: str = "cosine",
    num_threads: int | None = None,
) -> Duplicates:
    """Group rows that are near to each other.

    Parameters
    ----------
    x : array_like, shape (n, d), float
    threshold : float, optional
        Least cosine, -1 to 1 and .95 by default, for the metrics "cosine" and "ip"; largest
        Euclidean distance for "l2", which must be given.
    metric : {"cosine", "ip", "l2"}
    num_threads : int, optional

    Returns
    -------
    Duplicates
        Connected components: two rows of a group may be further apart than the threshold,
        with others between them.

    Raises
    ------
    InputError
        Vectors that cannot be used.
    UsageError
        Unknown metric, or a threshold that cannot be.

    Notes
    -----
    Every pair is compared, by FAISS; what comes as near to the threshold as rounding is compared
    again in double precision.
    """
    limit = check_threshold(threshold, metric)
    a = check_vectors(x, metric="l2" if metric == "l2" else "cosine")

    def blocks(start: int, stop: int) -> Iterator[Floats]:
        yield a[start:stop]

    return group_pairs(
        blocks, len(a), limit, metric=metric, at_once=len(a), num_threads=num_threads
    )


def check_threshold(threshold: float | None, metric: str) -> float:
    """The threshold, or the metric's default.

    Raises
    ------
    UsageError
    """
    check_metric(metric)
    if metric == "l2":
        if threshold is None:
            raise UsageError("a distance has no natural threshold: give one for the metric l2")
        if not 0 <= threshold < np.inf:
            raise UsageError(f"threshold {threshold} must be a distance of 0 or more")
        return threshold
    threshold = DEFAULT_COSINE if threshold is None else threshold
    if not -1 <= threshold <= 1:
        raise UsageError(f"threshold {threshold} must be a cosine of -1 to 1")
    return threshold


def group_pairs(
    blocks: Blocks,
    count: int,
    threshold: float,
    *,
    metric: str,
    at_once: int,
    num_threads: int | None = None,
) -> Duplicates:
    """:func:`find_duplicates` of rows that are read as they are needed.

    Parameters
    ----------
    blocks : callable
        Yields the rows from a start to a stop, in order.
    count : int
        Rows.
    threshold : float
    metric : {"cosine", "ip", "l2"}
    at_once : int
        Rows held in memory: as many times as these go into `count`, everything is read.
    num_threads : int, optional

    Returns
    -------
    Duplicates
    """
    l2 = metric == "l2"
    forest = Forest(count)
    n_pairs = 0
    with faiss_threads(num_threads):
        for start in range(0, count, at_once):
            stop = min(start + at_once, count)
            held = [_Held(first, part, l2=l2) for first, part in _cut(blocks, start, stop, l2)]
            for first, rows in _cut(blocks, start, count, l2, QUERY_ROWS):
                for base in held:
                    if base.first < first + len(rows):
                        left, right = base.near(first, rows, threshold)
                        n_pairs += len(left)
                        forest.join(left, right)
    groups, sizes = forest.groups()
    return Duplicates(groups, sizes, n_pairs)


class Forest:
    """Disjoint sets of the numbers below `count`, joined by many pairs at a time."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int64)

    def join(self, left: Ids, right: Ids) -> None:
        """Put each number of `left` in one set with its partner in `right`."""
        while len(left):
            left, right = self._roots(left), self._roots(right)
            apart = left != right
            left, right = left[apart], right[apart]
            # The lower root becomes the parent, so that there are no circles. Of several lower
            # ones the lowest wins now, and the others are joined in the next round.
            np.minimum.at(self._parent, np.maximum(left, right), np.minimum(left, right))

    def groups(self) -> tuple[Ids, Ids]:
        """Sets of two or more, the largest first: number of each row, or -1, and sizes."""
        roots = self._roots(np.arange(len(self._parent)))
        sizes = np.bincount(roots, minlength=len(roots))
        order = np.argsort(-sizes, kind="stable")
        order = order[sizes[order] > 1]
        numbers = np.full(len(roots), -1, np.int64)
        numbers[order] = np.arange(len(order))
        return numbers[roots], sizes[order]

    def _roots(self, rows: Ids) -> Ids:
        parent = self._parent
        roots = parent[rows]
        while True:
            above = parent[roots]
            if np.array_equal(above, roots):
                parent[rows] = roots
                return roots
            roots = above


class _Held:
    """Some rows in an index, with the number of their first."""

    def __init__(self, first: int, rows: Floats, *, l2: bool) -> None:
        import faiss

        self.first, self.rows, self.l2 = first, rows, l2
        self.index: Any = (
            faiss.IndexFlatL2(rows.shape[1]) if l2 else faiss.IndexFlatIP(rows.shape[1])
        )
        self.index.add(rows)
        self._largest = _largest_square(rows) if l2 else 1.0

    def near(self, first: int, rows: Floats, threshold: float) -> tuple[Ids, Ids]:
        """Pairs of a row held and a later one of `rows` that are as near as the threshold."""
        if self.l2:
            doubt = DOUBT * (self._largest + _largest_square(rows))
            wanted, loose = threshold**2, threshold**2 + doubt
        else:
            doubt = DOUBT
            wanted, loose = threshold, threshold - doubt
        starts, scores, found = self.index.range_search(rows, float(loose))
        asked = np.repeat(np.arange(len(rows)), np.diff(starts.astype(np.int64)))
        found = np.asarray(found, np.int64)
        later = found + self.first < asked + first
        asked, found, scores = asked[later], found[later], scores[later]
        kept = scores < wanted if self.l2 else scores > wanted
        unsure = np.flatnonzero(np.abs(scores - wanted) <= doubt)
        kept[unsure] = _as_near(
            self.rows[found[unsure]], rows[asked[unsure]], threshold, l2=self.l2
        )
        return found[kept] + self.first, asked[kept] + first


def _as_near(a: Floats, b: Floats, threshold: float, *, l2: bool) -> NDArray[np.bool_]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    if l2:
        away = np.linalg.norm(x - y, axis=1)
        return np.asarray(away <= threshold * (1 + TOLERANCE))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosine = np.einsum("ij,ij->i", x, y) / np.where(lengths > 0, lengths, 1)
    return np.asarray(cosine >= threshold - TOLERANCE)


def _cut(
    blocks: Blocks, start: int, stop: int, l2: bool, rows: int = BASE_ROWS
) -> Iterator[tuple[int, Floats]]:
    first = start
    for block in blocks(start, stop):
        for s in range(0, len(block), rows):
            part = block[s : s + rows]
            yield first + s, np.ascontiguousarray(part if l2 else unit_rows(part))
        first += len(block)


def _largest_square(rows: Floats) -> float:
    return float(np.einsum("ij,ij->i", rows, rows, dtype=np.float64).max())
