"""Which code sizes to train, so that the smallest one that reaches a recall is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embedpress.autoencoder.options import check_code_size
from embedpress.errors import UsageError

LADDER = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Bytes a vector that are tried."""
DEFAULT_TARGET = 0.9
FIRST_GAIN = 0.25
"""Share of the neighbours that a start misses which training is first thought to find: what
it found of sentence embeddings at 16, 32 and 64 bytes (see the README)."""


def ladder(groups: int | None, *, dim: int, metric: str) -> list[int]:
    """Sizes that embeddings of `dim` dimensions allow, the smallest first.

    Raises
    ------
    UsageError
        None of them.
    """
    sizes = []
    for size in LADDER:
        try:
            check_code_size(size, groups, dim=dim, metric=metric)
        except UsageError:
            continue
        sizes.append(size)
    if not sizes:
        slices = "" if groups is None else f" in groups={groups}"
        raise UsageError(
            f"code_size='auto' tries {LADDER[0]} to {LADDER[-1]} bytes, and none of them{slices} "
            f"goes with {dim} dimensions and metric {metric!r}: give code_size a number"
        )
    return sizes


def rising(starts: Mapping[int, float]) -> dict[int, float]:
    """The sizes worth their bytes: no smaller one starts at a higher recall.

    One that does not divide the dimensions loses those that its slices leave over.
    """
    kept: dict[int, float] = {}
    for size, recall in sorted(starts.items()):
        if recall >= max(kept.values(), default=0):
            kept[size] = recall
    return kept


def next_size(
    starts: Mapping[int, float], trained: Mapping[int, float], target: float
) -> int | None:
    """The size to train next, or None once the answer is known.

    Recall is taken to rise with the size. So the answer lies above every size that fell
    short and not above any that holds; it is known when no size is left in between.
    Of these the smallest is trained that should reach the target if training closes the
    same share of the start's gap to 1 as it did last, else the largest of them.

    Parameters
    ----------
    starts : mapping of int to float
        Recall of each size before any training.
    trained : mapping of int to float
        Recall of each size trained so far, in the order of training.
    target : float

    Returns
    -------
    int or None
        A size of `starts` that is not in `trained`.
    """
    short = max((size for size, recall in trained.items() if recall < target), default=0)
    holds = min((size for size, recall in trained.items() if recall >= target), default=None)
    open_ = sorted(size for size in starts if size > short and (holds is None or size < holds))
    if not open_:
        return None
    gain = FIRST_GAIN
    if trained:
        last = list(trained)[-1]
        missed = 1 - starts[last]
        gain = (trained[last] - starts[last]) / missed if missed else FIRST_GAIN
    for size in open_:
        if starts[size] + gain * (1 - starts[size]) >= target:
            return size
    return open_[-1]


def train_sizes(
    starts: Mapping[int, float], train: Callable[[int], float], target: float
) -> dict[int, float]:
    """Train size after size by :func:`next_size`, each once; `train` returns its recall."""
    worthwhile = rising(starts)
    trained: dict[int, float] = {}
    while (size := next_size(worthwhile, trained, target)) is not None:
        trained[size] = train(size)
    return trained


def chosen_size(trained: Mapping[int, float], target: float) -> int:
    """The smallest trained size that reaches `target`; where none does, the largest."""
    holds = [size for size, recall in trained.items() if recall >= target]
    return min(holds) if holds else max(trained)
