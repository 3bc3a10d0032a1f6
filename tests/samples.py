"""Small data that a compressor can learn something from, and options that fit it quickly."""

from __future__ import annotations

from typing import Any

import numpy as np

DIM = 32


def curved(n: int, *, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Vectors of unlike lengths on one curved sheet, whatever the seed, with a little noise."""
    sheet = np.random.default_rng(7)
    weights, phases = 2 * sheet.normal(size=(3, dim)), sheet.uniform(0, 2 * np.pi, dim)
    rng = np.random.default_rng(seed)
    x = np.cos(rng.uniform(-1, 1, (n, 3)) @ weights + phases) + 0.2
    x += 0.02 * rng.normal(size=x.shape)
    return (x * rng.lognormal(0, 0.2, (n, 1))).astype(np.float32)


SMALL: dict[str, Any] = {
    "n_components": 6,
    "code_size": 4,
    "hidden_sizes": (24,),
    "epochs": 12,
    "learning_rate": 0.05,
    "monitor": "loss",
    "num_threads": 1,
}
"""Fitted in a fraction of a second, and far from its linear start afterwards."""
