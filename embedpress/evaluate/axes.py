"""Principal axes of vectors that may be too many to centre in one piece."""

from __future__ import annotations

import numpy as np

from embedpress.evaluate.exact import Floats

BLOCK_ROWS = 16384


def principal_axes(x: Floats, n_components: int, *, centred: bool = True) -> Floats:
    """The directions of largest variance.

    Parameters
    ----------
    x : ndarray, shape (n, d), float32
    n_components : int
    centred : bool
        Subtract the mean first; without it the directions of largest second moment.

    Returns
    -------
    ndarray, shape (d, n_components), float32
        Orthonormal columns, the largest first; the largest entry of each is positive, which
        makes the result the same on every machine.
    """
    mean = x.mean(axis=0, dtype=np.float64) if centred else np.zeros(x.shape[1])
    moment = np.zeros((x.shape[1], x.shape[1]))
    for s in range(0, len(x), BLOCK_ROWS):
        part = x[s : s + BLOCK_ROWS] - mean
        moment += part.T @ part
    vectors = np.linalg.eigh(moment)[1][:, ::-1][:, :n_components]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    return np.ascontiguousarray(vectors * signs, dtype=np.float32)
