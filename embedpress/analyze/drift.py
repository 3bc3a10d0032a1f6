"""Drift: are these vectors still of the kind that a compressor was fitted on?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.analyze.reference import Reference
from embedpress.errors import UsageError
from embedpress.evaluate.exact import Floats
from embedpress.evaluate.statistics import row_cosines

FALSE_ALARM_RATE = 0.01
LEAST_SHIFT = 0.1
LEAST_DROP = 0.05
CANARY_COSINE = 0.999


@dataclass(frozen=True)
class Check:
    """One question, and whether its answer speaks of drift.

    Attributes
    ----------
    name : str
    value, threshold : float
        Drift where the value lies beyond the threshold: above it for a shift, below it for
        a recall or a cosine.
    drifted : bool
    detail : str
        In words.
    """

    name: str
    value: float
    threshold: float
    drifted: bool
    detail: str


def check_rates(false_alarm_rate: float, least_shift: float) -> None:
    """Raise `UsageError` for a rate or a shift that cannot be."""
    if not 0 < false_alarm_rate < 1:
        raise UsageError(f"false_alarm_rate {false_alarm_rate} must lie between 0 and 1")
    if not 0 <= least_shift <= 1:
        raise UsageError(f"least_shift {least_shift} must lie between 0 and 1")


def check_errors(
    reference: Mapping[str, NDArray[np.float64]],
    errors: Mapping[str, NDArray[np.float64]],
    *,
    rate: float,
    least_shift: float = LEAST_SHIFT,
) -> list[Check]:
    """Compare reconstruction errors with those of the reference, form by form.

    Parameters
    ----------
    reference, errors : mapping of str to ndarray, float64
        By "codes" and "latents".
    rate : float
        Chance of a false alarm of each comparison.
    least_shift : float
        A smaller shift is none, however sure.

    Returns
    -------
    list of Check
        The value is the Kolmogorov-Smirnov statistic: the largest difference of the two
        distribution functions, the share of vectors that would have to move. The threshold is
        what samples of one distribution exceed at the given rate, or `least_shift`.
    """
    checks = []
    for form in reference:
        if form not in errors:
            continue
        known, new = reference[form], errors[form]
        statistic = ks_statistic(known, new)
        threshold = max(least_shift, ks_threshold(len(known), len(new), rate))
        above = float(_share_above(known, new))
        detail = (
            f"median {np.median(known):.4f} then, {np.median(new):.4f} now; a new error exceeds "
            f"an old one {above:.0%} of the time (50% without drift)"
        )
        drifted = statistic > threshold
        checks.append(Check(f"error of {form}", statistic, threshold, drifted, detail))
    return checks


def check_recall(
    reference: Mapping[int, tuple[float, float]],
    rows: int,
    recall: tuple[float, float],
    *,
    rate: float,
    least_drop: float = LEAST_DROP,
) -> Check:
    """Compare leave-one-out recall among as many rows as in the reference.

    Parameters
    ----------
    reference : mapping of int to (mean, standard deviation)
    rows : int
        A key of it.
    recall : (mean, standard deviation) over the rows
    rate : float
        Chance of a false alarm, by the normal approximation of a difference of means.
    least_drop : float
        A smaller drop is none.

    Returns
    -------
    Check
    """
    (known, spread), (mean, own) = reference[rows], recall
    error = math.sqrt((spread**2 + own**2) / rows)
    threshold = known - max(least_drop, NormalDist().inv_cdf(1 - rate) * error)
    detail = f"recall@10 among {rows:,} rows: {known:.3f} then, {mean:.3f} now"
    return Check("recall", mean, threshold, mean < threshold, detail)


def check_canaries(
    reference: Reference, ids: list[str], x: Floats, *, least: float = CANARY_COSINE
) -> Check | None:
    """Compare the embeddings of the same ids then and now.

    Parameters
    ----------
    reference : Reference
    ids : list of str
    x : ndarray, shape (len(ids), d), float32
    least : float
        Cosine below which a canary is not the same any more.

    Returns
    -------
    Check or None
        Without a known id there is nothing to compare.
    """
    row_of = {one: row for row, one in enumerate(ids)}
    known = [i for i, one in enumerate(reference.canary_ids) if one in row_of]
    if not known:
        return None
    now = x[[row_of[reference.canary_ids[i]] for i in known]]
    cosine = row_cosines(reference.canaries[known], now)
    lengths = np.linalg.norm(now, axis=1) / np.linalg.norm(reference.canaries[known], axis=1)
    stretched = float(np.abs(np.log(lengths)).max()) > 0.01
    detail = f"{len(known)} inputs of then: least cosine with their embeddings of now"
    if stretched:
        detail += "; their lengths have changed"
    worst = float(cosine.min())
    return Check("canary", worst, least, worst < least or stretched, detail)


def check_extractor(reference: Mapping[str, str], now: Mapping[str, str]) -> Check | None:
    """Compare the checksums by which extractors are known, where both have some."""
    both = [name for name in reference if name in now]
    if not both:
        return None
    same = sum(reference[name] == now[name] for name in both) / len(both)
    said = "the same" if same == 1 else "another one, or other settings of it"
    return Check("extractor", same, 1.0, same < 1, f"the extractor is {said}")


def ks_statistic(a: Any, b: Any) -> float:
    """Largest difference of the two samples' distribution functions."""
    x, y = np.sort(np.asarray(a, np.float64)), np.sort(np.asarray(b, np.float64))
    both = np.concatenate([x, y])
    below = np.searchsorted(x, both, "right") / len(x) - np.searchsorted(y, both, "right") / len(y)
    return float(np.abs(below).max())


def ks_threshold(n: int, m: int, rate: float) -> float:
    """The statistic that samples of `n` and `m` rows of one distribution exceed at a rate.

    Notes
    -----
    Kolmogorov's distribution with Stephens's correction for small samples (1970), which errs on
    the side of fewer alarms.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _ks_chance(middle, n, m) > rate else (low, middle)
    return high


def _ks_chance(statistic: float, n: int, m: int) -> float:
    root = math.sqrt(n * m / (n + m))
    z = (root + 0.12 + 0.11 / root) * statistic
    if z < 0.2:
        return 1.0
    terms: Iterable[float] = ((-1) ** (k - 1) * math.exp(-2 * k * k * z * z) for k in range(1, 101))
    return float(min(1.0, max(0.0, 2 * sum(terms))))


def _share_above(known: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Chance that a new value exceeds an old one, ties by half (the area under a ROC curve)."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, new, "left") + np.searchsorted(ordered, new, "right")
    return float(below.mean() / 2 / len(known))
