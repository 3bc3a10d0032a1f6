"""What a graph is compared with: vectors to ask it, what the network makes of them, how far off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor

Arrays = dict[str, NDArray[Any]]
"""Arrays by the names of a graph's inputs or outputs."""


def vectors_like_those_of(compressor: Compressor, count: int, seed: int = 0) -> NDArray[Any]:
    """Random vectors as long as those trained on, or they would all look alike to the networks."""
    length = float(compressor.scale_.scale) / compressor.n_features_in_**0.5
    shape = (count, compressor.n_features_in_)
    x: NDArray[Any] = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    x *= np.float32(length)
    return x


def expected_of(compressor: Compressor, embeddings: NDArray[np.float32]) -> Arrays:
    """What torch makes of embeddings, under the names of an encoder graph's outputs."""
    found: Arrays = {"embeddings": embeddings}
    if compressor.latent_tower_ is not None:
        # set_output() may have made transform give a table.
        found["latents"] = np.asarray(compressor.transform(embeddings))
    if compressor.code_tower_ is not None:
        found["codes"] = compressor.encode(embeddings)
    return found


def difference_beyond(got: NDArray[Any], expected: NDArray[Any], tolerance: float) -> float | None:
    """The largest difference of floats, where it is too large; NaN is.

    Parameters
    ----------
    got, expected : ndarray, of one shape
    tolerance : float
        Relative to the largest value that is expected.

    Returns
    -------
    float or None
    """
    difference = float(np.abs(got - expected).max(initial=0))
    fits = difference <= tolerance * float(np.abs(expected).max(initial=0))
    return None if fits else difference
