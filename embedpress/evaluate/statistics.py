"""What reconstructions, latents and codes look like, in a few numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.exact import Floats
from embedpress.evaluate.result import CodeUse, LatentSpace, Reconstruction

BINS = 60
LATENT_BINS = 61
DEAD_SHARE = 1e-6


def row_cosines(x: Floats, y: Floats) -> NDArray[np.float64]:
    """Cosine of each row of `x` with that of `y`; 1 where both are zero, 0 where one is.

    Parameters
    ----------
    x, y : ndarray, shape (n, d), float32

    Returns
    -------
    ndarray, shape (n,), float64
    """
    dot = np.einsum("ij,ij->i", x, y, dtype=np.float64)
    nx = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    ny = np.sqrt(np.einsum("ij,ij->i", y, y, dtype=np.float64))
    product = nx * ny
    both = (nx == 0) & (ny == 0)
    cosine = np.where(product > 0, dot / np.where(product > 0, product, 1), np.where(both, 1, 0))
    return np.asarray(np.clip(cosine, -1, 1), np.float64)


def reconstruction(form: str, x: Floats, restored: Floats) -> Reconstruction:
    """How near restored embeddings are to the original ones.

    Parameters
    ----------
    form : str
        "codes" or "latents".
    x, restored : ndarray, shape (n, d), float32

    Returns
    -------
    Reconstruction
    """
    cosine = row_cosines(x, restored)
    squared = np.einsum("ij,ij->", x - restored, x - restored, dtype=np.float64)
    total = np.einsum("ij,ij->", x, x, dtype=np.float64)
    low = max(-1.0, np.floor(float(cosine.min()) * 20) / 20)
    counts, edges = np.histogram(cosine, bins=BINS, range=(min(low, 0.95), 1.0))
    p01, p05, p50, p95, p99 = np.quantile(cosine, [0.01, 0.05, 0.5, 0.95, 0.99]).tolist()
    return Reconstruction(
        form=form,
        rows=len(x),
        cosine_mean=float(cosine.mean()),
        cosine_p01=p01,
        cosine_p05=p05,
        cosine_p50=p50,
        cosine_p95=p95,
        cosine_p99=p99,
        relative_error=float(squared / total) if total else 0.0,
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def latent_space(latents: Floats) -> LatentSpace:
    """How many of the components are used.

    Parameters
    ----------
    latents : ndarray, shape (n, n_components), float32

    Returns
    -------
    LatentSpace

    Notes
    -----
    The effective rank is the exponential of the entropy of the covariance's eigenvalues as
    shares (Roy and Vetterli 2007). A component is dead when its variance is below a millionth
    of the largest.
    """
    z = latents.astype(np.float64) - latents.mean(axis=0, dtype=np.float64)
    covariance = z.T @ z / max(1, len(z) - 1)
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0)
    total = float(eigenvalues.sum())
    share = eigenvalues / total if total > 0 else np.zeros_like(eigenvalues)
    used = share[share > 0]
    variances = np.diag(covariance)
    largest = float(variances.max())
    dead = int((variances <= DEAD_SHARE * largest).sum()) if largest > 0 else len(variances)
    edges = _shared_edges(latents)
    return LatentSpace(
        rows=len(z),
        n_components=z.shape[1],
        effective_rank=float(np.exp(-(used * np.log(used)).sum())) if len(used) else 0.0,
        dead=dead,
        variance_shares=share.tolist(),
        edges=edges.tolist(),
        histograms=[np.histogram(column, bins=edges)[0].tolist() for column in latents.T],
    )


def _shared_edges(latents: Floats) -> NDArray[np.float64]:
    """Bins for all components, over all but their most extreme values, 0 in the middle."""
    reach = float(np.quantile(np.abs(latents), 0.9995)) or 1.0
    return np.linspace(-reach, reach, LATENT_BINS + 1)


def code_use(codes: NDArray[np.uint8]) -> CodeUse:
    """How evenly the codewords are used.

    Parameters
    ----------
    codes : ndarray, shape (n, code_size), uint8

    Returns
    -------
    CodeUse
    """
    unused, entropy = [], []
    for column in codes.T:
        counts = np.bincount(column, minlength=256)
        share = counts[counts > 0] / len(codes)
        unused.append(int((counts == 0).sum()))
        # Adding 0 turns the minus zero of a single codeword into zero.
        entropy.append(float(-(share * np.log2(share)).sum()) + 0.0)
    return CodeUse(rows=len(codes), code_size=codes.shape[1], unused=unused, entropy_bits=entropy)
