"""Whether near stays near: trustworthiness and continuity of a compressed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.exact import Floats, unit_rows
from embedpress.evaluate.result import Neighbourhood

SAMPLE_ROWS = 2_000
DEPTHS = (5, 10, 20, 50, 100)


def neighbourhoods(
    form: str, x: Floats, z: Floats, *, metric: str, ks: Sequence[int] = DEPTHS
) -> list[Neighbourhood]:
    """Compare the neighbours among some rows before and after.

    Parameters
    ----------
    form : str
        What `z` is.
    x, z : ndarray, shape (n, d) and (n, w), float32
        The same rows before and after; of at most a few thousand, since all pairs are ranked.
    metric : {"cosine", "ip", "l2"}
        Of either; inner products are compared as cosines, by which a row is nearest to itself.
    ks : sequence of int
        Neighbours that count; numbers above half of the rows are left out.

    Returns
    -------
    list of Neighbourhood
        Both figures are 1 where all neighbours are the same, about .5 where they are chance.

    Notes
    -----
    Trustworthiness falls by rows that came near, continuity by rows that went away, each by how
    far (Venna and Kaski 2001).
    """
    before, after = (_ranks(a, l2=metric == "l2") for a in (x, z))
    n = len(x)
    return [
        Neighbourhood(form, n, k, _kept(before, after, k), _kept(after, before, k))
        for k in ks
        if 2 * k < n
    ]


def _ranks(x: Floats, *, l2: bool) -> NDArray[np.int32]:
    """Place of each row among the neighbours of each; a row itself has place 0."""
    a = x.astype(np.float64) if l2 else unit_rows(x).astype(np.float64)
    away = -2 * a @ a.T + np.einsum("ij,ij->i", a, a)
    np.fill_diagonal(away, -np.inf)
    order = np.argsort(away, axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(len(x), dtype=np.int32)[None], axis=1)
    return ranks


def _kept(true: NDArray[np.int32], seen: NDArray[np.int32], k: int) -> float:
    n = len(true)
    intruders = (seen > 0) & (seen <= k) & (true > k)
    lost = float((true[intruders] - k).sum(dtype=np.float64))
    return 1 - 2 * lost / (n * k * (2 * n - 3 * k - 1))
