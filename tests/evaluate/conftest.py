"""Small data with the traits of embeddings: clusters in a space of fading variances."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embedpress.threads import faiss_threads


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    # On data this small, waking more threads costs more than it saves.
    with faiss_threads(1):
        yield


def embeddings(n: int, dim: int = 32, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = 0.93 ** np.arange(dim)
    centres = np.random.default_rng(99).normal(size=(12, dim)) * scale
    x = centres[rng.integers(12, size=n)] + rng.normal(size=(n, dim)) * scale
    return np.asarray(x, np.float32)


@pytest.fixture(scope="session")
def base() -> np.ndarray:
    return embeddings(1500, seed=1)


@pytest.fixture(scope="session")
def queries() -> np.ndarray:
    return embeddings(80, seed=2)
