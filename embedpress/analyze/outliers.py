"""Anomalies: vectors that the compressor cannot restore are unlike those it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, UsageError
from embedpress.vectors import check_vectors

DEVIATIONS = 3.5
"""Robust deviations above the median that "auto" takes for an anomaly."""


@dataclass(frozen=True)
class Outliers:
    """Scores and which of them lie beyond the threshold.

    Attributes
    ----------
    scores : ndarray of shape (n,), float64
        Larger is stranger.
    threshold : float
        A score above it is an outlier; infinite for contamination 0.
    labels : ndarray of shape (n,), int64
        1 for an outlier, else 0.
    """

    scores: NDArray[np.float64]
    threshold: float
    labels: NDArray[np.int64]


def reconstruction_error(x: Any, restored: Any, metric: str = "cosine") -> NDArray[np.float64]:
    """How far each restored vector is from its original.

    Parameters
    ----------
    x, restored : array-like of shape (n, d)
    metric : {"cosine", "ip", "l2"}
        For "cosine" one minus the cosine, in [0, 2]; else the squared distance.

    Returns
    -------
    ndarray of shape (n,), float64

    Raises
    ------
    InputError
        Unlike shapes.

    Notes
    -----
    Reconstruction error of an autoencoder as an anomaly score: Sakurada and Yairi, "Anomaly
    detection using autoencoders with nonlinear dimensionality reduction" (2014).
    """
    a = check_vectors(np.asarray(x)).astype(np.float64)
    b = check_vectors(np.asarray(restored), what="restored vectors").astype(np.float64)
    if a.shape != b.shape:
        raise InputError(f"originals {a.shape} and restored vectors {b.shape} differ in shape")
    if metric != "cosine":
        distances: NDArray[np.float64] = np.square(a - b).sum(axis=1)
        return distances
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.einsum("ij,ij->i", a, b) / np.maximum(norms, 1e-300)
    errors: NDArray[np.float64] = np.clip(1 - cosines, 0, 2)
    return errors


def find_outliers(scores: Any, contamination: float | str = 0.01) -> Outliers:
    """Which scores are too large.

    Parameters
    ----------
    scores : array-like of shape (n,)
    contamination : float or "auto"
        Expected share of outliers, 0 to 0.5; 0 calls none. "auto" calls those more than 3.5
        robust deviations (1.4826 times the median absolute deviation) above the median.

    Returns
    -------
    Outliers

    Raises
    ------
    UsageError
        A contamination that cannot be.
    InputError
        No scores, or NaN among them.

    Notes
    -----
    The rule of "auto": Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993).
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError("scores must be one row of finite numbers, at least one")
    if contamination == "auto":
        median = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - median)))
        threshold = median + DEVIATIONS * spread
    elif isinstance(contamination, str) or not 0 <= contamination <= 0.5:
        raise UsageError(f"contamination={contamination} must be auto or lie between 0 and 0.5")
    elif contamination == 0:
        threshold = float("inf")
    else:
        threshold = float(np.quantile(values, 1 - contamination))
    return Outliers(values, threshold, (values > threshold).astype(np.int64))
