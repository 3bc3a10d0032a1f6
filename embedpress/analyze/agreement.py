"""How well clusters agree with true classes, from a table of counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError


def agreement(labels_true: Sequence[Any] | NDArray[Any], labels: Any) -> dict[str, float]:
    """How well clusters agree with true classes.

    Parameters
    ----------
    labels_true : sequence, length n
        Numbers or text.
    labels : array_like, shape (n,), int
        Noise (-1) counts as a cluster of its own.

    Returns
    -------
    dict
        See :func:`agreement_of`.

    Raises
    ------
    InputError
        Labels of unequal length, or none.
    """
    found = np.asarray(labels)
    classes = [str(value) for value in labels_true]
    if found.ndim != 1 or len(found) != len(classes) or not len(found):
        raise InputError(f"there are {len(classes)} true labels for {found.shape} clusters")
    names, true = np.unique(classes, return_inverse=True)
    clusters, own = np.unique(found, return_inverse=True)
    table = np.bincount(own * len(names) + true, minlength=len(clusters) * len(names))
    return agreement_of(table.reshape(len(clusters), -1))


def agreement_of(table: NDArray[np.int64]) -> dict[str, float]:
    """The same from how many rows of each cluster are of each class.

    Parameters
    ----------
    table : ndarray, shape (n_clusters, n_classes), int64

    Returns
    -------
    dict
        ``nmi`` (normalised mutual information, arithmetic mean: Vinh et al. 2010), ``ari``
        (adjusted Rand index: Hubert and Arabie 1985) and ``purity`` (share of rows whose class
        is the most frequent of their cluster, which grows with the number of clusters).
    """
    counts = table.astype(np.float64)
    n = counts.sum()
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    there = counts > 0
    expected = np.outer(rows, columns)[there]
    mutual = float((counts[there] / n * np.log(counts[there] * n / expected)).sum())
    own, true = _entropy(rows / n), _entropy(columns / n)
    # A single cluster of a single class agrees in full, though it says nothing.
    nmi = max(0.0, mutual) / ((own + true) / 2) if own + true > 0 else 1.0
    together, in_clusters, in_classes = _pairs(counts), _pairs(rows), _pairs(columns)
    by_chance = in_clusters * in_classes / max(_pairs(np.array([n])), 1.0)
    most = (in_clusters + in_classes) / 2
    ari = (together - by_chance) / (most - by_chance) if most != by_chance else 1.0
    return {
        "nmi": float(nmi),
        "ari": float(ari),
        "purity": float(counts.max(axis=1).sum() / n),
    }


def _entropy(shares: NDArray[np.float64]) -> float:
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())


def _pairs(counts: NDArray[np.float64]) -> float:
    return float((counts * (counts - 1) / 2).sum())
