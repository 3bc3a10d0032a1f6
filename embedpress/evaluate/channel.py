"""The Gaussian rate-distortion channel: what a code of R bits could keep if the embeddings were
Gaussian, by reverse water-filling over the eigenvalues of their covariance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.exact import Floats, nearest_in_blocks, unit_rows
from embedpress.evaluate.metrics import PerQuery, recall_at_k
from embedpress.vectors.check import check_vectors

BLOCK_ROWS = 16384


def water_level(variances: Any, bits: float) -> float:
    """The theta at which reverse water-filling spends `bits`.

    Parameters
    ----------
    variances : array_like, shape (d,), float
        Eigenvalues of the covariance, in any order.
    bits : float
        Rate of one vector.

    Returns
    -------
    float
        theta with ``sum(max(0, log2(variance / theta) / 2)) == bits``; the largest variance
        at 0 bits.

    Raises
    ------
    InputError
        Variances that are negative, not finite or all zero.
    UsageError
        Negative or infinite bits.
    """
    v = np.asarray(variances, np.float64).ravel()
    if not len(v) or not np.isfinite(v).all() or v.min() < 0 or v.max() == 0:
        raise InputError("variances must be finite, not negative and not all zero")
    if not 0 <= bits < np.inf:
        raise UsageError(f"bits is {bits}: give a finite rate of 0 or more")
    log = np.log2(np.sort(v[v > 0])[::-1])
    # With the m largest components under water the rate is (sum(log) - m log theta) / 2; the
    # right m is the last whose theta lies below the variance of its own last component.
    m = np.arange(1, len(log) + 1)
    theta = (np.cumsum(log) - 2 * bits) / m
    last = int(np.flatnonzero(theta <= log + 1e-12)[-1])
    return float(2 ** theta[last])


def rate_distortion(variances: Any, bits: float) -> float:
    """Least mean squared error of a Gaussian vector at a rate: ``sum(min(theta, variance))``.

    Parameters
    ----------
    variances, bits
        As in :func:`water_level`.

    Returns
    -------
    float
        Expected squared Euclidean distance between a vector and its reconstruction.
    """
    v = np.asarray(variances, np.float64).ravel()
    return float(np.minimum(water_level(v, bits), v).sum())


@dataclass(frozen=True)
class GaussianChannel:
    """Mean, eigenbasis and variances of a sample, as a channel of any rate.

    Attributes
    ----------
    mean : ndarray, shape (d,), float32
    basis : ndarray, shape (d, d), float32
        Eigenvectors as columns, largest variance first.
    variances : ndarray, shape (d,), float64
    """

    mean: Floats
    basis: Floats
    variances: NDArray[np.float64]

    def distortion(self, bits: float) -> float:
        """Mean squared error at `bits` a vector, see :func:`rate_distortion`."""
        return rate_distortion(self.variances, bits)

    def transmit(self, x: Any, bits: float, *, seed: int = 0) -> Floats:
        """Pass vectors through the forward test channel of rate `bits`.

        Parameters
        ----------
        x : array_like, shape (n, d), float
        bits : float
        seed : int
            Of the channel's noise; row i gets the same noise whatever `bits` is.

        Returns
        -------
        ndarray, shape (n, d), float32
            What a receiver would have: a mean squared error of ``distortion(bits)`` if `x`
            has this covariance.
        """
        a = check_vectors(x, dim=len(self.mean))
        return np.concatenate(list(self._blocks(a, bits, seed)))

    def _blocks(self, x: Floats, bits: float, seed: int) -> Iterator[Floats]:
        theta = water_level(self.variances, bits)
        kept = int((self.variances > theta).sum())
        gain = 1 - theta / self.variances[:kept]
        noise = np.sqrt(theta * gain).astype(np.float32)
        basis = np.ascontiguousarray(self.basis[:, :kept])
        rng = np.random.default_rng(seed)
        for start in range(0, len(x), BLOCK_ROWS):
            y = (x[start : start + BLOCK_ROWS] - self.mean) @ basis * gain.astype(np.float32)
            drawn = rng.standard_normal((len(y), len(self.mean)), dtype=np.float32)
            yield (y + drawn[:, :kept] * noise) @ basis.T + self.mean


def fit_channel(x: Any) -> GaussianChannel:
    """Estimate the channel from a sample.

    Parameters
    ----------
    x : array_like, shape (n, d), float
        The vectors whose compression is bounded (unit vectors for the cosine metric). Use
        well over `d` rows, held out from any training: fewer give variances of zero and with
        them a bound that is too good.

    Returns
    -------
    GaussianChannel

    Raises
    ------
    InputError
        Fewer than two rows, or no variance at all.
    """
    a = check_vectors(x)
    if len(a) < 2:
        raise InputError("a covariance needs two rows or more")
    mean = a.mean(axis=0, dtype=np.float64)
    moment = np.zeros((a.shape[1], a.shape[1]))
    for start in range(0, len(a), BLOCK_ROWS):
        centred = a[start : start + BLOCK_ROWS] - mean
        moment += centred.T @ centred
    values, vectors = np.linalg.eigh(moment / (len(a) - 1))
    variances = np.maximum(values[::-1], 0)
    if variances[0] == 0:
        raise InputError("all rows are the same: there is nothing to compress")
    basis = np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)
    return GaussianChannel(mean.astype(np.float32), basis, variances)


def channel_recall(
    channel: GaussianChannel,
    base: Any,
    queries: Any,
    truth: Any,
    *,
    bits: float,
    metric: str,
    seed: int = 0,
    num_threads: int | None = None,
) -> PerQuery:
    """Recall when the base has gone through the channel and the queries have not.

    Parameters
    ----------
    channel : GaussianChannel
        Fitted on vectors like the base, for the cosine metric on unit vectors.
    base, queries : array_like, shape (n, d) and (nq, d), float
    truth : array_like, shape (nq, k), int
        True neighbours by the untouched base.
    bits : float
        Rate of one base vector: 8 times its bytes.
    metric : {"cosine", "ip", "l2"}
        Cosine scales base and queries to length 1 first and then scores inner products, the
        way product quantization does.
    seed : int
    num_threads : int, optional

    Returns
    -------
    ndarray, shape (nq,), float64
        As :func:`~embedpress.evaluate.metrics.recall_at_k`.

    Notes
    -----
    Shannon's channel for Gaussian sources (Cover and Thomas, section 10.3.3), with squared
    error as its distortion. Real embeddings are not Gaussian and recall is not squared error:
    a code above this line has made use of one or the other.
    """
    dim = len(channel.mean)
    b = check_vectors(base, dim=dim, metric=metric, what="base vectors")
    q = check_vectors(queries, dim=dim, metric=metric, what="queries")
    if metric == "cosine":
        b, q = unit_rows(b), unit_rows(q)
    k = np.asarray(truth).shape[1]
    blocks = channel._blocks(b, bits, seed)
    ids, _ = nearest_in_blocks(q, blocks, k, l2=metric == "l2", num_threads=num_threads)
    return recall_at_k(ids, truth)
