"""Where training starts: the best linear maps and codebooks, in closed form or by k-means."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.autoencoder.quantizer import CODEBOOK_SIZE

Floats = NDArray[np.float32]


def principal_axes(x: Floats, n_components: int) -> tuple[Floats, Floats, Floats]:
    """Principal component analysis by the covariance's eigenvectors.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
    n_components : int
        Axes to keep, at most d.

    Returns
    -------
    axes : ndarray of shape (n_components, d), float32
        Orthonormal rows, most variance first, each with its largest entry positive.
    mean : ndarray of shape (d,), float32
    variance : ndarray of shape (n_components,), float32
    """
    mean = x.mean(axis=0, dtype=np.float64)
    centred = x - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / max(1, len(x) - 1)
    variance, vectors = np.linalg.eigh(covariance)
    axes = vectors[:, ::-1][:, :n_components].T
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
    kept = np.maximum(variance[::-1][:n_components], 0)
    return axes.astype(np.float32), mean.astype(np.float32), kept.astype(np.float32)


def balanced_groups(variance: Floats, groups: int) -> list[list[int]]:
    """Deal principal axes into equally wide groups of about equal product of variances.

    The parametric solution of Ge et al., "Optimized Product Quantization" (2013): axes in
    falling variance, each to the group with the smallest product that still has room.

    Returns
    -------
    list of list of int
        The axes of each group.
    """
    width = len(variance) // groups
    floor = max(float(variance.max()) * 1e-12, 1e-30)
    logs = np.log(np.maximum(variance, floor)) - np.log(floor)
    dealt: list[list[int]] = [[] for _ in range(groups)]
    product = np.zeros(groups)
    for axis in range(width * groups):
        room = [g for g in range(groups) if len(dealt[g]) < width]
        group = min(room, key=lambda g: float(product[g]))
        dealt[group].append(axis)
        product[group] += logs[axis]
    return dealt


def rotation(x: Floats, width: int, groups: int) -> tuple[Floats, Floats]:
    """Orthonormal map to `width` dimensions, made ready for `groups` codebooks side by side.

    Returns
    -------
    axes : ndarray of shape (width, d), float32
    mean : ndarray of shape (d,), float32
    """
    axes, mean, variance = principal_axes(x, width)
    order = np.concatenate(balanced_groups(variance, groups)).astype(np.int64)
    return np.ascontiguousarray(axes[order]), mean


def residual_codebooks(
    z: Floats, stages: int, groups: int, *, seed: int, max_points: int = 40_000
) -> Floats:
    """Codebooks by k-means, stage after stage on what the stages before left over.

    Parameters
    ----------
    z : ndarray of shape (n, groups * slice), float32
    stages, groups : int
    seed : int
    max_points : int
        k-means sees at most so many rows.

    Returns
    -------
    ndarray of shape (stages, groups, 256, slice), float32
    """
    rows = np.random.default_rng(seed).permutation(len(z))[:max_points]
    residual = np.ascontiguousarray(z[np.sort(rows)])
    width = z.shape[1] // groups
    books = np.empty((stages, groups, CODEBOOK_SIZE, width), dtype=np.float32)
    for stage in range(stages):
        for group in range(groups):
            part = np.ascontiguousarray(residual[:, group * width : (group + 1) * width])
            book = _kmeans(part, seed + stage * groups + group)
            nearest = faiss.knn(part, book, 1)[1][:, 0]
            residual[:, group * width : (group + 1) * width] -= book[nearest]
            books[stage, group] = book
    return books


def _kmeans(x: Floats, seed: int) -> Floats:
    """256 centroids; where there are fewer points than that, the points and copies of them."""
    if len(x) <= CODEBOOK_SIZE:
        return x[np.arange(CODEBOOK_SIZE) % len(x)]
    kmeans = faiss.Kmeans(
        x.shape[1],
        CODEBOOK_SIZE,
        niter=10,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    kmeans.train(x)
    return np.asarray(kmeans.centroids, np.float32)
