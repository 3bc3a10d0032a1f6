"""Outliers: vectors that a compressor, having learnt the others, cannot restore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.statistics import row_cosines
from embedpress.vectors.check import check_metric, check_vectors

ROBUST_Z = 3.5


@dataclass(frozen=True)
class Outliers:
    """Anomaly scores and which of them count as outliers.

    Attributes
    ----------
    scores : ndarray, shape (n,), float64
        As given; higher is stranger.
    labels : ndarray, shape (n,), bool
        True for an outlier.
    threshold : float
        The lowest score of an outlier for a share; for "auto" what a score must exceed;
        infinity where nothing may be an outlier.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.bool_]
    threshold: float


def reconstruction_error(x: Any, reconstruction: Any, metric: str) -> NDArray[np.float64]:
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


def find_outliers(scores: Any, contamination: float | Literal["auto"] | str = "auto") -> Outliers:
    """Tell outliers from the rest by their scores.

    Parameters
    ----------
    scores : array_like, shape (n,), float
        Higher is stranger, such as :func:`reconstruction_error`.
    contamination : float or "auto"
        The share of outliers, 0 to 0.5: the ``round(share * n)`` highest scores, at least one
        for a share above 0, and of equal scores the first rows. "auto" takes the scores above
        ``median + 3.5 * s``, where `s` is the median absolute deviation over .6745, which is the
        standard deviation if the scores are Gaussian.

    Returns
    -------
    Outliers

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
    a = np.asarray(scores, np.float64)
    if a.ndim != 1 or not len(a):
        raise InputError(f"scores must be a non-empty list of numbers, not of shape {a.shape}")
    if not np.isfinite(a).all():
        raise InputError(f"score of row {int(np.argmin(np.isfinite(a)))} is not finite")
    if contamination == "auto":
        threshold = _robust_threshold(a)
        return Outliers(a, a > threshold, threshold)
    try:
        share = float(contamination)
    except (TypeError, ValueError):
        share = np.nan
    if not 0 <= share <= 0.5:
        raise UsageError(f"contamination {contamination!r} must be a share of 0 to 0.5, or auto")
    labels = np.zeros(len(a), bool)
    count = max(1, round(share * len(a))) if share > 0 else 0
    if count == 0:
        return Outliers(a, labels, float("inf"))
    top = np.argsort(-a, kind="stable")[:count]
    labels[top] = True
    return Outliers(a, labels, float(a[top[-1]]))


def _robust_threshold(scores: NDArray[np.float64]) -> float:
    median = float(np.median(scores))
    away = np.abs(scores - median)
    spread = float(np.median(away)) / 0.6745
    if spread == 0:
        spread = 1.2533 * float(away.mean())
    return median + ROBUST_Z * spread
