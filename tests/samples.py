"""Small data that a compressor can learn something from, and options that fit it quickly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.engine.job import Job, Piece
from embedpress.engine.run import run_job
from embedpress.vectors import Manifest, shard_table

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
    "epochs": 15,
    "learning_rate": 0.03,
    "monitor": "loss",
    "num_threads": 1,
}
"""Fitted in a fraction of a second, and far from its linear start afterwards."""


def write_embeddings(
    folder: Path,
    x: np.ndarray,
    *,
    ids: Sequence[int] | Sequence[str] | None = None,
    metadata: dict[str, Sequence[Any]] | None = None,
    metric: str = "cosine",
    rows_per_shard: int = 250,
    **about: Any,
) -> Path:
    """A folder of embeddings as an extractor writes it."""
    names = list(range(len(x))) if ids is None else list(ids)
    columns = pa.table(metadata or {}) if metadata else None

    def work(start: int) -> Piece:
        stop = start + rows_per_shard
        part = None if columns is None else columns.slice(start, rows_per_shard)
        return Piece(shard_table(names[start:stop], x[start:stop], part))

    run_job(
        Job(
            folder,
            Manifest(kind="embeddings", dim=x.shape[1], metric=metric, **about),
            "samples",
            lambda done: (
                (i, start)
                for i, start in enumerate(range(0, len(x), rows_per_shard))
                if i not in done
            ),
            work,
        )
    )
    return folder
