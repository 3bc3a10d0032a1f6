"""Scores of strangeness: how far off a restored vector is, and which scores are too high."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.statistics import row_cosines
from embedpress.vectors.check import check_metric, check_vectors

ROBUST_Z = 3.5

Scores = NDArray[np.float64]


def reconstruction_error(x: Any, reconstruction: Any, metric: str) -> Scores:
    """How far each vector is from what is restored of it.

    Parameters
    ----------
    x, reconstruction : array_like, shape (n, d), float
    metric : {"cosine", "ip", "l2"}
        One less the cosine (0 to 2) for "cosine", Euclidean distance otherwise.

    Returns
    -------
    ndarray, shape (n,), float64

    Raises
    ------
    InputError
        Vectors that cannot be used, or of unequal number.
    """
    check_metric(metric)
    a = check_vectors(x, metric=metric)
    b = check_vectors(reconstruction, dim=a.shape[1], what="reconstructions")
    if len(a) != len(b):
        raise InputError(f"there are {len(b)} reconstructions of {len(a)} vectors")
    if metric == "cosine":
        return np.asarray(np.maximum(1 - row_cosines(a, b), 0), np.float64)
    away = a - b
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", away, away, dtype=np.float64)), np.float64)


def check_contamination(value: Any) -> float | Literal["auto"]:
    """A share of outliers of 0 to 0.5, or "auto", also as text; raise UsageError otherwise."""
    if isinstance(value, str) and value == "auto":
        return "auto"
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 0.5:
        raise UsageError(f"contamination {value!r} must be a share of 0 to 0.5, or auto")
    return share


def contamination_threshold(
    scores: Any, contamination: float | Literal["auto"] | str = "auto"
) -> float:
    """The score that an outlier exceeds.

    Parameters
    ----------
    scores : array_like, shape (n,), float
        Higher is stranger.
    contamination : float or "auto"
        The share of outliers, 0 to 0.5: the threshold is the quantile above which it lies, as in
        PyOD (Zhao et al., 2019). None exceeds that of 0, which is infinite. "auto" is
        ``median + 3.5 * s``, where `s` is the median absolute deviation over .6745, which is the
        standard deviation if the scores are Gaussian.

    Returns
    -------
    float

    Raises
    ------
    InputError
        No scores, or some that are not finite.
    UsageError
        A share outside 0 to 0.5.

    Notes
    -----
    "auto" is the modified z-score of Iglewicz and Hoaglin 1993, who also give the mean absolute
    deviation times 1.2533 for `s` where more than half of the scores are equal.
    """
    a = _checked(scores)
    share = check_contamination(contamination)
    if share == "auto":
        median = float(np.median(a))
        away = np.abs(a - median)
        spread = float(np.median(away)) / 0.6745 or 1.2533 * float(away.mean())
        return median + ROBUST_Z * spread
    return float(np.quantile(a, 1 - share)) if share else math.inf


def false_positive_threshold(scores: Any, rate: float) -> float:
    """The score that a vector of the known kind exceeds with probability `rate` at the most.

    Parameters
    ----------
    scores : array_like, shape (n,), float
        Of vectors of the known kind that took no part in any learning.
    rate : float
        In (0, 1).

    Returns
    -------
    float

    Raises
    ------
    UsageError
        A rate that cannot be, or that needs more scores.

    Notes
    -----
    The quantile of rank ``ceil((n + 1) * (1 - rate))``, as in conformal prediction (Vovk et
    al., 2005): the promise holds for any distribution, on average over draws of the scores.
    """
    a = _checked(scores)
    if not isinstance(rate, (int, float)) or not 0 < rate < 1:
        raise UsageError(f"false_positive_rate={rate!r} must lie in (0, 1)")
    rank = math.ceil((len(a) + 1) * (1 - rate) - 1e-9)
    if rank > len(a):
        needed = math.ceil(1 / rate - 1 - 1e-9)
        raise UsageError(
            f"a false-positive rate of {rate:g} needs {needed:,} held-out vectors, and there are "
            f"{len(a):,}: give more vectors or a higher rate"
        )
    return float(np.sort(a)[rank - 1])


def _checked(scores: Any) -> Scores:
    a = np.asarray(scores, np.float64)
    if a.ndim != 1 or not len(a):
        raise InputError(f"scores must be a non-empty list of numbers, not of shape {a.shape}")
    if not np.isfinite(a).all():
        raise InputError(f"score of row {int(np.argmin(np.isfinite(a)))} is not finite")
    return a
