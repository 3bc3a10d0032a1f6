"""What the indexes under test hold, and what a search of them should find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embedpress.autoencoder.estimator import Compressor
from embedpress.index.search import Hits
from embedpress.vectors import open_vectors

N = 500
IDS = [f"id {i}" for i in range(N)]
METADATA: dict[str, list[Any]] = {
    "label": [["food", "toys", None, 'it\'s "odd"'][i % 4] for i in range(N)],
    "year": [None if i % 7 == 0 else 1990 + i % 30 for i in range(N)],
    "price": [None if i % 11 == 0 else i / 4 for i in range(N)],
    "sold": [None if i % 5 == 0 else i % 2 == 0 for i in range(N)],
    "limit": [1990 + i % 17 for i in range(N)],
    "nothing": [None] * N,
    "score": [float(-i) for i in range(N)],
}


def exact_scores(
    fitted: Callable[..., Compressor], folder: Path, queries: np.ndarray, options: dict[str, Any]
) -> np.ndarray:
    """Scores (n_queries, n) of what is stored, in double precision; larger is nearer."""
    compressor = fitted(**options)
    values = open_vectors(folder).read(columns=()).vectors
    if values.dtype == np.uint8:
        tower = compressor.code_tower_
        assert tower is not None
        assert tower.quantizer is not None
        stored = compressor._run(tower.quantizer.lookup, values.astype(np.int64))
        asked = compressor._run(lambda q: tower.query_encoder(compressor.scale_(q)), queries)
    else:
        stored, asked = values, compressor.transform_queries(queries)
    stored, asked = stored.astype(np.float64), asked.astype(np.float64)
    if options.get("metric") == "l2":
        return -np.square(asked[:, None] - stored[None]).sum(axis=2)
    return asked @ stored.T


def assert_best(hits: Hits, scores: np.ndarray, k: int, metric: str) -> None:
    """The hits are the k best of these scores, equal ones in any order."""
    found = -hits.scores if metric == "l2" else hits.scores
    tolerance = 1e-4 * np.abs(scores[np.isfinite(scores)]).max()
    for rows, line, truth in zip(hits.rows, found, scores, strict=True):
        n = min(k, int(np.isfinite(truth).sum()))
        assert (rows[n:] == -1).all()
        assert (line[n:] == -np.inf).all()
        rows, line = rows[:n], line[:n]
        assert len(set(rows.tolist())) == n
        np.testing.assert_allclose(line, truth[rows], atol=tolerance)
        assert (np.diff(line) <= 0).all()
        np.testing.assert_allclose(line, -np.sort(-truth)[:n], atol=tolerance)
