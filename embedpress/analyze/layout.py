"""A layout of vectors in the plane that keeps neighbours together, in numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.exact import Floats, Ids

NEIGHBORS = 15
NEGATIVES = 5
EPOCHS = 200
STEP_LIMIT = 4.0


def lay_out(start: Floats, near: Ids, distances: Floats, *, seed: int) -> Floats:
    """Move points until neighbours are close and others are not.

    Parameters
    ----------
    start : ndarray, shape (n, 2), float32
        First positions, such as the first two principal components.
    near : ndarray, shape (n, k), int64
        Neighbours of each row, itself left out, nearest first; -1 for none.
    distances : ndarray, shape (n, k), float32
        Of those neighbours, not negative.
    seed : int

    Returns
    -------
    ndarray, shape (n, 2), float32

    Notes
    -----
    The graph and the objective of UMAP (McInnes et al. 2018) with the kernel 1 / (1 + d^2),
    five negative samples an edge and 200 epochs of gradient descent, in blocks of as many edges
    as there are points so that a point moves little in each.
    """
    n = len(start)
    heads, tails, weights = _graph(near, distances)
    if n < 3 or not len(heads):
        return start
    rng = np.random.default_rng(seed)
    spread = float(np.abs(start).max()) or 1.0
    x = start.astype(np.float64) * (10 / spread) + rng.normal(0, 1e-4, start.shape)
    chance = weights / weights.max()
    for epoch in range(EPOCHS):
        rate = 1 - epoch / EPOCHS
        chosen = np.flatnonzero(rng.random(len(heads)) < chance)
        rng.shuffle(chosen)
        for s in range(0, len(chosen), n):
            part = chosen[s : s + n]
            _step(x, heads[part], tails[part], rate, rng)
    return np.asarray(x - x.mean(axis=0), np.float32)


def _graph(near: Ids, distances: Floats) -> tuple[Ids, Ids, NDArray[np.float64]]:
    """Edges in both directions with UMAP's weights, a row's nearest neighbour at weight 1."""
    n, k = near.shape
    known = near >= 0
    beyond = np.where(known, distances - distances[:, :1], np.inf).astype(np.float64)
    beyond = np.maximum(beyond, 0)
    # Each row's width is such that its weights add up to log2(k); 40 halvings are exact enough.
    target = np.log2(k) if k > 1 else 1.0
    width = np.full((n, 1), 1.0)
    low, high = np.zeros((n, 1)), np.full((n, 1), np.inf)
    for _ in range(40):
        total = np.exp(-beyond / width).sum(axis=1, keepdims=True)
        wide = total > target
        high, low = np.where(wide, width, high), np.where(wide, low, width)
        width = np.where(np.isinf(high), 2 * width, (low + high) / 2)
        width = np.maximum(width, 1e-12)
    weights = np.exp(-beyond / width)[known]
    heads = np.repeat(np.arange(n), k).reshape(n, k)[known]
    tails = near[known]
    # One direction or the other or both: a + b - a b.
    forward, backward = heads * n + tails, tails * n + heads
    keys, place = np.unique(np.concatenate([forward, backward]), return_inverse=True)
    a = np.bincount(place[: len(heads)], weights, minlength=len(keys))
    b = np.bincount(place[len(heads) :], weights, minlength=len(keys))
    return keys // n, keys % n, a + b - a * b


def _step(
    x: NDArray[np.float64], heads: Ids, tails: Ids, rate: float, rng: np.random.Generator
) -> None:
    apart = x[heads] - x[tails]
    squared = np.einsum("ij,ij->i", apart, apart)
    pull = np.clip(apart * (-2 / (1 + squared))[:, None], -STEP_LIMIT, STEP_LIMIT) * rate
    _add(x, heads, pull)
    _add(x, tails, -pull)
    pushed = np.repeat(heads, NEGATIVES)
    apart = x[pushed] - x[rng.integers(len(x), size=len(pushed))]
    squared = np.einsum("ij,ij->i", apart, apart)
    push = apart * (2 / ((0.001 + squared) * (1 + squared)))[:, None]
    _add(x, pushed, np.clip(push, -STEP_LIMIT, STEP_LIMIT) * rate)


def _add(x: NDArray[np.float64], rows: Ids, change: NDArray[np.float64]) -> None:
    for axis in range(x.shape[1]):
        x[:, axis] += np.bincount(rows, change[:, axis], minlength=len(x))
